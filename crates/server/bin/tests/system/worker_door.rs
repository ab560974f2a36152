use std::time::Duration;

use futures::StreamExt as _;
use hodei_jobs::v1;
use hodei_jobs::v1::server_frame::Frame as ServerKind;
use hodei_jobs::v1::worker_agent_service_client::WorkerAgentServiceClient;
use hodei_jobs::v1::worker_frame::Frame as WorkerKind;
use hodei_server_application::jobs::{self, QueueRequest};
use hodei_server_application::ports::workers::WorkerChange;
use hodei_server_domain::access::{Principal, Role};
use hodei_server_domain::job::end::Outcome;
use hodei_server_domain::job::spec::{JobSpec, SpecInput};
use hodei_server_domain::job::state::Phase;
use hodei_shared::ids::{JobId, Namespace, WorkerId};
use rcgen::KeyPair;
use tokio::io::AsyncReadExt as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt as _;

use crate::world::{Identity, PATIENCE, World};

type Agent = WorkerAgentServiceClient<Channel>;

pub(crate) fn admin() -> Principal {
    Principal {
        token_id: "test".to_owned(),
        role: Role::ClusterAdmin,
        namespace: Namespace::default_namespace(),
    }
}

pub(crate) async fn queue(world: &World) -> JobId {
    let input = SpecInput {
        command: vec!["true".to_owned()],
        retries: 1,
        ..SpecInput::default()
    };
    let request = QueueRequest {
        request_id: "one".to_owned(),
        namespace: None,
        spec: JobSpec::new(input).expect("valid"),
    };
    jobs::queue(&world.platform, &admin(), request)
        .await
        .expect("queued")
        .id
}

/// Registers the machine that the world makes for a job.
pub(crate) async fn register(world: &World) -> (WorkerId, String, Identity) {
    let (worker, otp) = tokio::time::timeout(PATIENCE, world.provider.password())
        .await
        .expect("a machine");
    let key = KeyPair::generate().expect("made");
    let mut agent = Agent::new(world.channel(None).await);
    let message = v1::RegisterWorkerRequest {
        otp: otp.clone(),
        csr_der: Identity::request(&key),
    };
    let registering = async {
        loop {
            match agent.register_worker(message.clone()).await {
                Ok(registered) => break registered.into_inner().certificate_chain_der,
                Err(early) => assert_eq!(early.code(), Code::Unavailable, "{early}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let chain = tokio::time::timeout(PATIENCE, registering)
        .await
        .expect("registered");
    (worker, otp, Identity { key, chain })
}

pub(crate) struct Session {
    say: mpsc::Sender<v1::WorkerFrame>,
    hear: Streaming<v1::ServerFrame>,
}

impl Session {
    pub(crate) async fn begin(world: &World, identity: &Identity) -> Result<Self, Status> {
        let mut agent = Agent::new(world.channel(Some(identity)).await);
        let (say, said) = mpsc::channel(16);
        let hello = v1::Hello {
            cpu_millis: 1_000,
            memory_bytes: 1 << 30,
            slots: 1,
            ..v1::Hello::default()
        };
        let mut session = {
            let hear = agent.connect(ReceiverStream::new(said));
            say.send(v1::WorkerFrame {
                frame: Some(WorkerKind::Hello(hello)),
            })
            .await
            .expect("open");
            Self {
                say,
                hear: hear.await?.into_inner(),
            }
        };
        assert!(matches!(session.next().await?, ServerKind::Welcome(welcome) if welcome.session > 0));
        Ok(session)
    }

    pub(crate) async fn say(&self, frame: WorkerKind) {
        self.say
            .send(v1::WorkerFrame { frame: Some(frame) })
            .await
            .expect("open");
    }

    pub(crate) async fn next(&mut self) -> Result<ServerKind, Status> {
        let heard = tokio::time::timeout(PATIENCE, self.hear.message())
            .await
            .expect("in time")?;
        heard
            .and_then(|frame| frame.frame)
            .ok_or_else(|| Status::cancelled("the stream ended"))
    }

    pub(crate) async fn assignment(&mut self) -> v1::Assign {
        loop {
            if let ServerKind::Assign(assign) = self.next().await.expect("open") {
                return assign;
            }
        }
    }

    /// Waits for the end of the stream.
    async fn end(&mut self) -> Status {
        loop {
            if let Err(status) = self.next().await {
                return status;
            }
        }
    }
}

pub(crate) fn reason(status: &Status) -> String {
    status
        .get_details_error_info()
        .map(|info| info.reason)
        .unwrap_or_default()
}

#[tokio::test]
async fn without_a_certificate_only_registration_is_served() {
    let world = World::new(Duration::from_secs(600)).await;
    let mut agent = Agent::new(world.channel(None).await);
    let nothing = v1::RenewCertificateRequest::default();
    let refused = [
        agent.renew_certificate(nothing).await.expect_err("renewal"),
        agent
            .connect(futures::stream::empty())
            .await
            .expect_err("session"),
        agent
            .stream_output(futures::stream::empty())
            .await
            .expect_err("output"),
    ];
    for status in refused {
        assert_eq!(status.code(), Code::Unauthenticated, "{status}");
    }
    let csr_der = Identity::request(&KeyPair::generate().expect("made"));
    let mut heard = Vec::new();
    for otp in ["", "garbage", "hodei_otp_a_b"] {
        let message = v1::RegisterWorkerRequest {
            otp: otp.to_owned(),
            csr_der: csr_der.clone(),
        };
        let refused = agent.register_worker(message).await.expect_err("no password");
        heard.push((refused.code(), refused.message().to_owned()));
    }
    heard.dedup();
    assert_eq!(
        heard,
        [(Code::PermissionDenied, "the registration is refused".to_owned())]
    );
    let huge = v1::RegisterWorkerRequest {
        otp: "x".repeat(20 << 10),
        csr_der,
    };
    assert!(agent.register_worker(huge).await.is_err());
}

#[tokio::test]
async fn a_worker_registers_runs_a_job_and_sends_its_output() {
    let world = World::new(Duration::from_secs(600)).await;
    let job = queue(&world).await;
    let (_, otp, identity) = register(&world).await;

    // The same password with the same key answers the same bytes.
    let mut stranger = Agent::new(world.channel(None).await);
    let again = v1::RegisterWorkerRequest {
        otp,
        csr_der: Identity::request(&identity.key),
    };
    let chain = stranger
        .register_worker(again)
        .await
        .expect("repeated")
        .into_inner();
    assert_eq!(chain.certificate_chain_der, identity.chain);

    let mut session = Session::begin(&world, &identity).await.expect("a session");
    session.say(WorkerKind::Beat(v1::Beat { n: 1 })).await;
    let assign = session.assignment().await;
    let key = assign.key.expect("a key");
    assert_eq!(
        (key.job_id.as_str(), assign.attempt),
        (job.to_string().as_str(), 1)
    );
    let running = v1::AttemptRunning {
        key: Some(key.clone()),
        started_at_ms: 5,
    };
    session.say(WorkerKind::Running(running)).await;

    let mut agent = Agent::new(world.channel(Some(&identity)).await);
    let piece = |start: u64, data: &'static [u8]| v1::OutputBatch {
        key: Some(key.clone()),
        piece: Some(v1::OutputPiece {
            start,
            data: data.into(),
            runs: vec![v1::OutputRun {
                stream: v1::Stream::Stdout.into(),
                length: data.len() as u64,
                at_ms: 6,
            }],
        }),
    };
    let batches = futures::stream::iter([piece(0, b"hel"), piece(3, b"lo\n")]);
    let answers = agent.stream_output(batches).await.expect("open").into_inner();
    let ends: Vec<_> = answers
        .map(|answer| answer.map(|a| (a.verdict(), a.end)).expect("stored"))
        .collect()
        .await;
    assert_eq!(ends.last(), Some(&(v1::OutputVerdict::Stored, 6)));

    let result = v1::AttemptResult {
        key: Some(key),
        kind: v1::EndKind::Exited.into(),
        exit_code: Some(0),
        started_at_ms: 5,
        ended_at_ms: 7,
        output_end: 6,
        ..v1::AttemptResult::default()
    };
    session.say(WorkerKind::Result(result)).await;
    loop {
        if let ServerKind::Result(answer) = session.next().await.expect("open") {
            assert_eq!(answer.verdict(), v1::ResultVerdict::Applied);
            break;
        }
    }
    let record = jobs::get(&world.platform, &admin(), job).await.expect("there");
    assert!(matches!(
        record.job.phase,
        Phase::Ended {
            outcome: Outcome::Succeeded,
            ..
        }
    ));
    assert_eq!(record.attempts[0].output.bytes, 6);
}

#[tokio::test]
async fn streams_end_with_the_certificate_and_then_only_renewal_is_served() {
    let world = World::new(Duration::from_secs(4)).await;
    queue(&world).await;
    let (_, _, identity) = register(&world).await;
    let mut session = Session::begin(&world, &identity).await.expect("a session");
    session.assignment().await;
    let end = session.end().await;
    assert_eq!(
        (end.code(), reason(&end).as_str()),
        (Code::Unauthenticated, "certificate_ended")
    );
    let refused = Session::begin(&world, &identity).await.err().expect("ended");
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::Unauthenticated, "certificate_ended")
    );

    // The attempt lives, so the same key gets a new certificate; another key does not.
    let mut agent = Agent::new(world.channel(Some(&identity)).await);
    let other = Identity::request(&KeyPair::generate().expect("made"));
    let refused = agent
        .renew_certificate(v1::RenewCertificateRequest { csr_der: other })
        .await;
    assert_eq!(refused.expect_err("another key").code(), Code::PermissionDenied);
    let same = v1::RenewCertificateRequest {
        csr_der: Identity::request(&identity.key),
    };
    let renewed = agent.renew_certificate(same).await.expect("renewed").into_inner();
    let renewed = Identity {
        key: identity.key,
        chain: renewed.certificate_chain_der,
    };
    Session::begin(&world, &renewed).await.expect("a session again");
}

#[tokio::test]
async fn a_revoked_worker_is_cut_off() {
    let world = World::new(Duration::from_secs(600)).await;
    queue(&world).await;
    let (worker, _, identity) = register(&world).await;
    let mut session = Session::begin(&world, &identity).await.expect("a session");
    session.assignment().await;
    let mut agent = Agent::new(world.channel(Some(&identity)).await);
    let silent = futures::stream::pending::<v1::OutputBatch>();
    let mut answers = agent.stream_output(silent).await.expect("open").into_inner();
    let revoke = WorkerChange::Revoke {
        worker,
        message: "by the test".to_owned(),
    };
    world
        .platform
        .workers
        .change(vec![revoke])
        .await
        .expect("revoked");
    session.say(WorkerKind::Beat(v1::Beat { n: 1 })).await;
    session.end().await;
    let cut = tokio::time::timeout(PATIENCE, answers.message())
        .await
        .expect("in time");
    assert!(cut.is_err(), "the output stream ends too");
    let refused = Session::begin(&world, &identity).await.err().expect("revoked");
    assert!(
        matches!(refused.code(), Code::Unauthenticated | Code::PermissionDenied),
        "{refused}"
    );
}

#[tokio::test]
async fn nonsense_ends_a_stream() {
    let world = World::new(Duration::from_secs(600)).await;
    let job = queue(&world).await;
    let (_, _, identity) = register(&world).await;
    let mut session = Session::begin(&world, &identity).await.expect("a session");
    session.assignment().await;
    session
        .say
        .send(v1::WorkerFrame { frame: None })
        .await
        .expect("open");
    assert_eq!(session.end().await.code(), Code::InvalidArgument);

    let mut agent = Agent::new(world.channel(Some(&identity)).await);
    let run = |length| v1::OutputRun {
        stream: v1::Stream::Stdout.into(),
        length,
        at_ms: 0,
    };
    let batch = |lease, length| v1::OutputBatch {
        key: Some(v1::AttemptKey {
            job_id: job.to_string(),
            lease,
            rank: 0,
        }),
        piece: Some(v1::OutputPiece {
            start: 0,
            data: b"abc".as_slice().into(),
            runs: vec![run(length)],
        }),
    };
    for (batch, code) in [
        (batch(1, 2), Code::InvalidArgument),
        (batch(99, 3), Code::PermissionDenied),
    ] {
        let open = futures::stream::iter([batch]).chain(futures::stream::pending());
        let mut answers = agent.stream_output(open).await.expect("open").into_inner();
        let refused = tokio::time::timeout(PATIENCE, answers.message())
            .await
            .expect("in time");
        assert_eq!(refused.expect_err("refused").code(), code);
    }
}

#[tokio::test]
async fn a_silent_connection_holds_up_nobody_and_is_closed() {
    let world = World::new(Duration::from_secs(600)).await;
    let mut silent = tokio::net::TcpStream::connect(world.address)
        .await
        .expect("connected");
    let mut agent = Agent::new(world.channel(None).await);
    let refused = agent
        .register_worker(v1::RegisterWorkerRequest::default())
        .await
        .expect_err("refused");
    assert_eq!(refused.code(), Code::PermissionDenied);
    let mut byte = [0];
    let closed = tokio::time::timeout(PATIENCE, silent.read(&mut byte))
        .await
        .expect("closed in time");
    assert!(matches!(closed, Ok(0) | Err(_)));
}
