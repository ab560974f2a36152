//! Standard input, and both streams through one pipe.

use super::*;

fn fed(bench: &Bench, script: &str) -> Assignment {
    Assignment {
        input: true,
        ..bench.shell(script)
    }
}

#[tokio::test]
async fn what_is_written_is_read_to_its_end() {
    for bench in benches("input") {
        let mut process = bench.start(fed(&bench, "cat")).await.unwrap();
        let mut input = process.input.take().unwrap();
        // More than a pipe holds, so that writing waits for the process.
        let block: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
        let sent = block.clone();
        let feeding = async move {
            for part in sent.chunks(100_000) {
                assert!(input.write(part).await, "the process reads");
            }
        };
        let (outcome, ()) = tokio::join!(finish(process), feeding);
        assert_eq!(outcome.end, ProcessEnd::Exited(0));
        assert!(
            outcome.stdout == block,
            "{} bytes came back",
            outcome.stdout.len()
        );
        until("the folder is gone", || bench.is_clean()).await;
    }
}

#[tokio::test]
async fn a_process_may_leave_its_input_unread() {
    for bench in benches("unread") {
        let mut process = bench
            .start(fed(&bench, "exec <&-; echo closed; sleep 600"))
            .await
            .unwrap();
        let mut input = process.input.take().unwrap();
        assert_eq!(line(&mut process).await, "closed\n");
        assert!(!input.write(b"nobody reads this").await);
        process.control.signal(Signal::Kill);
        assert_eq!(finish(process).await.end, ProcessEnd::Signalled(9));
    }
}

#[tokio::test]
async fn merged_streams_keep_their_order() {
    let script = "for n in $(seq 200); do echo out $n; echo err $n >&2; done";
    let expected: String = (1..=200).map(|n| format!("out {n}\nerr {n}\n")).collect();
    for bench in benches("merge") {
        let merged = Assignment {
            merge: true,
            ..bench.shell(script)
        };
        let outcome = bench.run(merged).await;
        assert_eq!(String::from_utf8(outcome.stdout).unwrap(), expected);
        assert!(outcome.stderr.is_empty());
    }
}
