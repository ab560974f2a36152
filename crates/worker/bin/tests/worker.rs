//! The binary against a server of the test: bootstrap on standard input, registration, a job, its output, its end.
#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hodei_jobs::v1;
use hodei_jobs::v1::worker_agent_service_server::{WorkerAgentService, WorkerAgentServiceServer};
use rcgen::{BasicConstraints, CertificateParams, CertificateSigningRequestParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

const LIMIT: Duration = Duration::from_secs(60);
const OTP: &str = "hodei_otp_test_secret";

/// What the test is told, in the order in which the server hears it.
enum Heard {
    Session(mpsc::Sender<Result<v1::ServerFrame, Status>>),
    Frame(v1::WorkerFrame),
    Output(v1::OutputBatch),
}

struct Server {
    issuer: Issuer<'static, KeyPair>,
    heard: mpsc::Sender<Heard>,
}

fn authority() -> (Issuer<'static, KeyPair>, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pem = params.self_signed(&key).unwrap().pem();
    (Issuer::new(params, key), pem)
}

#[tonic::async_trait]
impl WorkerAgentService for Server {
    type ConnectStream = ReceiverStream<Result<v1::ServerFrame, Status>>;
    type StreamOutputStream = ReceiverStream<Result<v1::OutputAnswer, Status>>;

    async fn register_worker(
        &self,
        request: Request<v1::RegisterWorkerRequest>,
    ) -> Result<Response<v1::RegisterWorkerResponse>, Status> {
        let request = request.into_inner();
        if request.otp != OTP {
            return Err(Status::permission_denied("no"));
        }
        let request = CertificateSigningRequestParams::from_der(&request.csr_der.to_vec().into()).unwrap();
        let certificate = request.signed_by(&self.issuer).unwrap();
        Ok(Response::new(v1::RegisterWorkerResponse {
            certificate_chain_der: vec![certificate.der().to_vec()],
        }))
    }

    async fn renew_certificate(
        &self,
        _: Request<v1::RenewCertificateRequest>,
    ) -> Result<Response<v1::RenewCertificateResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn read_input(
        &self,
        _: Request<v1::ReadInputRequest>,
    ) -> Result<Response<v1::ReadInputResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn connect(
        &self,
        request: Request<Streaming<v1::WorkerFrame>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let mut frames = request.into_inner();
        let (to_worker, answers) = mpsc::channel(16);
        let heard = self.heard.clone();
        tokio::spawn(async move {
            heard.send(Heard::Session(to_worker)).await.unwrap();
            while let Ok(Some(frame)) = frames.message().await {
                heard.send(Heard::Frame(frame)).await.unwrap();
            }
        });
        Ok(Response::new(ReceiverStream::new(answers)))
    }

    async fn stream_output(
        &self,
        request: Request<Streaming<v1::OutputBatch>>,
    ) -> Result<Response<Self::StreamOutputStream>, Status> {
        let mut batches = request.into_inner();
        let (answers, stream) = mpsc::channel(16);
        let heard = self.heard.clone();
        tokio::spawn(async move {
            while let Ok(Some(batch)) = batches.message().await {
                let piece = batch.piece.clone().unwrap();
                let answer = v1::OutputAnswer {
                    key: batch.key.clone(),
                    end: piece.start + piece.data.len() as u64,
                    verdict: v1::OutputVerdict::Stored.into(),
                };
                heard.send(Heard::Output(batch)).await.unwrap();
                answers.send(Ok(answer)).await.unwrap();
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

struct Connection(TlsStream<TcpStream>);

impl tonic::transport::server::Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Starts a server; answers its address, its root and what it hears.
async fn serve() -> (String, String, mpsc::Receiver<Heard>) {
    let (issuer, root) = authority();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["hodei.test".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    let pem = rustls::pki_types::pem::PemObject::from_pem_slice(root.as_bytes());
    let der: rustls::pki_types::CertificateDer<'_> = pem.unwrap();
    roots.add(der).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()
        .unwrap();
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (accepted, connections) = mpsc::channel(16);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(stream) = acceptor.accept(stream).await {
                let _over = accepted.send(Ok::<_, std::io::Error>(Connection(stream))).await;
            }
        }
    });
    let (heard, hears) = mpsc::channel(1024);
    let service = WorkerAgentServiceServer::new(Server { issuer, heard });
    tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming(ReceiverStream::new(connections)),
    );
    (address, root, hears)
}

struct Worker {
    process: Child,
    id: String,
    folder: tempfile::TempDir,
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.process.kill();
        let _reaped = self.process.wait();
        // Nobody is left to do this but whoever started the worker.
        hodei_worker_infrastructure::cgroup::remove_left_by(&self.id);
    }
}

impl Worker {
    fn start(address: &str, root: &str, otp: &str, slots: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let id = format!("test-{}-{slots}", std::process::id());
        let document = serde_json::json!({
            "otp": otp, "root_certificates": root, "server_name": "hodei.test", "addresses": [address],
            "socket": null, "now_ms": 0, "worker_id": id,
            "cpu_millis": 1000, "memory_bytes": 1 << 30, "slots": slots, "leave_after_ms": 5000,
        });
        let limited = "ulimit -S -n 200; ulimit -H -n 256; exec \"$@\"";
        let mut process = Command::new("/bin/sh")
            .args([
                "-c",
                limited,
                "sh",
                env!("CARGO_BIN_EXE_hodei-worker"),
                "--folder",
            ])
            .arg(folder.path().join("w"))
            .env("SERVER_SECRET", "must not be seen")
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = process.stdin.take().unwrap();
        stdin.write_all(format!("{document}\n").as_bytes()).unwrap();
        Self { process, id, folder }
    }

    async fn exit_code(&mut self) -> i32 {
        let start = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status.code().unwrap();
            }
            assert!(start.elapsed() < LIMIT, "the worker ends in time");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

async fn next(heard: &mut mpsc::Receiver<Heard>) -> Heard {
    tokio::time::timeout(LIMIT, heard.recv())
        .await
        .expect("the worker is heard in time")
        .unwrap()
}

fn frame(frame: v1::server_frame::Frame) -> Result<v1::ServerFrame, Status> {
    Ok(v1::ServerFrame { frame: Some(frame) })
}

fn assign(script: &str) -> v1::server_frame::Frame {
    v1::server_frame::Frame::Assign(v1::Assign {
        key: Some(v1::AttemptKey {
            job_id: hodei_shared::ids::JobId::from_bytes([7; 16]).to_string(),
            lease: 1,
            rank: 0,
        }),
        spec: Some(v1::JobSpec {
            script: script.to_owned(),
            ..v1::JobSpec::default()
        }),
        namespace: "default".to_owned(),
        attempt: 1,
        repeatable: true,
    })
}

#[tokio::test]
async fn a_worker_registers_runs_a_job_and_leaves() {
    use v1::server_frame::Frame;
    use v1::worker_frame::Frame as Said;
    for slots in [1, 3, 64] {
        let (address, root, mut heard) = serve().await;
        let mut worker = Worker::start(&address, &root, OTP, slots);
        let mut session = None;
        let (mut output, mut enforced, mut result) = (Vec::new(), Vec::new(), None);
        loop {
            match next(&mut heard).await {
                Heard::Session(to_worker) => session = Some(to_worker),
                Heard::Output(batch) => output.extend(batch.piece.unwrap().data),
                Heard::Frame(said) => {
                    let to_worker = session.as_ref().unwrap();
                    match said.frame.unwrap() {
                        Said::Hello(hello) => {
                            // With 256 descriptors.
                            assert!(hello.slots == slots.min(20) || hello.slots == 1, "{hello:?}");
                            enforced = hello.enforced;
                            let welcome = v1::Welcome {
                                session: 1,
                                beat_interval_ms: 1000,
                                addresses: vec![address.clone()],
                                now_ms: 0,
                            };
                            to_worker.send(frame(Frame::Welcome(welcome))).await.unwrap();
                            let script = "env; echo $(ulimit -Sn) of $(ulimit -Hn); grep -h Cap /proc/self/status; setsid sleep 600 & echo pid $$; \
                                          cat /proc/1/environ; \
                                          grep -q hodei /proc/1/comm && kill -9 1; \
                                          cd \"$HOME\" && rm -rf ../../../* 2>/dev/null; ls ../../..; echo done";
                            to_worker.send(frame(assign(script))).await.unwrap();
                        }
                        Said::Beat(v1::Beat { n }) => {
                            to_worker
                                .send(frame(Frame::Beat(v1::BeatAnswer { n })))
                                .await
                                .unwrap();
                        }
                        Said::Result(ended) => {
                            let answer = v1::ResultAnswer {
                                key: ended.key.clone(),
                                verdict: v1::ResultVerdict::Applied.into(),
                            };
                            result = Some(ended);
                            to_worker.send(frame(Frame::Result(answer))).await.unwrap();
                            to_worker.send(frame(Frame::Drain(v1::Drain {}))).await.unwrap();
                        }
                        Said::Leaving(v1::Leaving {}) => break,
                        Said::Running(_) => {}
                        Said::NeverStarted(never) => panic!("{never:?}"),
                    }
                }
            }
        }
        let result = result.unwrap();
        let text = String::from_utf8(output).unwrap();
        assert_eq!(result.exit_code, Some(0), "{result:?} {text}");
        assert_eq!(
            result.output_end as usize,
            text.len(),
            "all output came before the worker left"
        );
        assert!(
            text.contains("HODEI_JOB_ID=") && text.ends_with("done\n"),
            "{text}"
        );
        assert!(
            text.contains("\n200 of 256\n"),
            "the limit that the worker was started with: {text}"
        );
        assert!(
            !text.contains("SERVER_SECRET"),
            "nothing of the worker's environment: {text}"
        );
        if enforced.iter().any(|word| word == "no_capabilities") {
            assert!(text.contains("CapEff:\t0000000000000000\n"), "{text}");
            assert!(text.contains("CapPrm:\t0000000000000000\n"), "{text}");
        }
        if enforced.iter().any(|word| word == "worker_folder_read_only") {
            assert!(text.ends_with("attempts\nlock\ndone\n"), "{text}");
        }
        assert_eq!(worker.exit_code().await, 0);
        let cgroup = format!("hodei-{}", worker.id);
        assert!(!cgroups().contains(&cgroup), "its cgroups are removed");
        let left = std::fs::read_dir(worker.folder.path().join("w/attempts"));
        assert_eq!(
            left.map_or(0, Iterator::count),
            0,
            "nothing is left in the folder"
        );
    }
}

#[tokio::test]
async fn a_refused_worker_ends_with_3() {
    let (address, root, _heard) = serve().await;
    assert_eq!(
        Worker::start(&address, &root, "hodei_otp_wrong", 2)
            .exit_code()
            .await,
        3
    );
}

#[tokio::test]
async fn a_term_from_outside_ends_the_worker() {
    let (address, root, mut heard) = serve().await;
    let mut worker = Worker::start(&address, &root, OTP, 2);
    while !matches!(next(&mut heard).await, Heard::Frame(_)) {}
    let pid = worker.process.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(worker.exit_code().await, 0);
}

/// What lies in this process's own cgroup.
fn cgroups() -> Vec<String> {
    let probe = format!("test-{}-probe", std::process::id());
    let Some(own) = hodei_worker_infrastructure::cgroup::Cgroups::create(&probe) else {
        return Vec::new();
    };
    let entries = std::fs::read_dir(own.path().parent().unwrap()).unwrap().flatten();
    entries
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect()
}

/// Whether a process has `text` in its arguments.
fn runs(text: &str) -> bool {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let arguments = processes.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    arguments
        .into_iter()
        .any(|line| String::from_utf8_lossy(&line).contains(text))
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < LIMIT, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn nothing_outlives_a_killed_worker() {
    use v1::server_frame::Frame;
    let (address, root, mut heard) = serve().await;
    let mut worker = Worker::start(&address, &root, OTP, 4);
    let mut session = None;
    let job = format!("98765.{}", std::process::id());
    let hello = loop {
        match next(&mut heard).await {
            Heard::Session(to_worker) => session = Some(to_worker),
            Heard::Frame(v1::WorkerFrame {
                frame: Some(v1::worker_frame::Frame::Hello(hello)),
            }) => break hello,
            _ => {}
        }
    };
    if !hello.enforced.iter().any(|word| word == "pid_namespace") {
        // Without the namespace the provider kills what carries the worker's id.
        return;
    }
    let to_worker = session.unwrap();
    let welcome = v1::Welcome {
        session: 1,
        beat_interval_ms: 1000,
        addresses: Vec::new(),
        now_ms: 0,
    };
    to_worker.send(frame(Frame::Welcome(welcome))).await.unwrap();
    to_worker
        .send(frame(assign(&format!("setsid sleep {job} & wait"))))
        .await
        .unwrap();
    until("the job runs", || runs(&format!("sleep\0{job}"))).await;
    worker.process.kill().unwrap();
    worker.process.wait().unwrap();
    let folder = worker.folder.path().to_string_lossy().into_owned();
    until("nothing is left", || !runs(&job) && !runs(&folder)).await;
}
