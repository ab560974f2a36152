//! Output: few messages, no loss, no doubling, bounded.

use std::time::Duration;

use hodei_shared::offsets::{Piece, Stream};
use hodei_worker_domain::attempt::ProcessEnd;
use hodei_worker_domain::frame::{OutputVerdict, ResultVerdict, ServerFrame, WorkerFrame};

use super::fakes::{ServerEnd, World, assignment};

async fn piece(server: &mut ServerEnd) -> Piece {
    let piece = server.output.recv().await.expect("the worker is connected").piece;
    assert!(piece.is_consistent());
    piece
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_lines_take_few_messages() {
    let mut world = World::start();
    let mut server = world.welcomed().await;
    server.send(ServerFrame::Assign(assignment(1)));
    let process = world.started().await;
    let (mut messages, mut text) = (0, Vec::new());
    let printing = async {
        for n in 0..10_000 {
            process
                .print(Stream::Stdout, format!("line {n}\n").as_bytes())
                .await;
            if n % 10 == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        process.end(ProcessEnd::Exited(0));
    };
    let total: usize = (0..10_000).map(|n| format!("line {n}\n").len()).sum();
    let reading = async {
        while text.len() < total {
            let piece = piece(&mut server).await;
            assert_eq!(piece.start, text.len() as u64);
            messages += 1;
            text.extend(&piece.data);
            server.answer_output(piece.end(), OutputVerdict::Stored);
        }
    };
    tokio::join!(printing, reading);
    assert!(messages < 50, "{messages} messages");
    assert!(text.starts_with(b"line 0\n") && text.ends_with(b"line 9999\n"));
    assert_eq!(server.result().await.output_end, total as u64);
}

#[tokio::test(start_paused = true)]
async fn the_first_line_is_sent_at_once_and_streams_are_told_apart() {
    let mut world = World::start();
    let mut server = world.welcomed().await;
    server.send(ServerFrame::Assign(assignment(1)));
    let process = world.started().await;
    let before = tokio::time::Instant::now();
    process.print(Stream::Stdout, b"out").await;
    assert_eq!(piece(&mut server).await.data, b"out");
    assert!(before.elapsed() < Duration::from_millis(5));
    process.print(Stream::Stdout, b"more").await;
    process.print(Stream::Stderr, b"error").await;
    server.answer_output(3, OutputVerdict::Stored);
    let rest = piece(&mut server).await;
    assert_eq!(rest.data, b"moreerror");
    let runs: Vec<(Stream, u64)> = rest.runs.iter().map(|run| (run.stream, run.len)).collect();
    assert_eq!(runs, [(Stream::Stdout, 4), (Stream::Stderr, 5)]);
}

#[tokio::test(start_paused = true)]
async fn a_new_session_goes_on_from_the_acknowledged_end() {
    let mut world = World::start();
    let mut server = world.welcomed().await;
    server.send(ServerFrame::Assign(assignment(1)));
    let process = world.started().await;
    process.print(Stream::Stdout, b"abc").await;
    assert_eq!(piece(&mut server).await.end(), 3);
    server.answer_output(3, OutputVerdict::Stored);
    process.print(Stream::Stdout, b"def").await;
    assert_eq!(piece(&mut server).await.start, 3);
    drop(server);
    process.print(Stream::Stdout, b"ghi").await;
    process.end(ProcessEnd::Exited(0));
    let mut server = world.welcomed().await;
    let again = piece(&mut server).await;
    assert_eq!((again.start, &again.data[..3]), (3, &b"def"[..]));
    let mut text = again.data;
    while text.len() < 6 {
        text.extend(piece(&mut server).await.data);
    }
    assert_eq!(text, b"defghi");
    assert_eq!(server.result().await.output_end, 9);
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_stored_is_sent_again_from_where_the_server_says() {
    let mut world = World::start();
    let mut server = world.welcomed().await;
    server.send(ServerFrame::Assign(assignment(1)));
    let process = world.started().await;
    process.print(Stream::Stdout, b"abcdef").await;
    piece(&mut server).await;
    server.answer_output(2, OutputVerdict::Retry);
    let again = piece(&mut server).await;
    assert_eq!((again.start, again.data.as_slice()), (2, &b"cdef"[..]));
    server.answer_output(0, OutputVerdict::Stale);
    process.print(Stream::Stdout, b"ghi").await;
    process.end(ProcessEnd::Exited(0));
    assert_eq!(
        server.result().await.output_end,
        9,
        "stale output is dropped, but counted"
    );
    assert!(server.output.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_flood_is_bounded_by_credit_and_then_stops_its_own_job() {
    let mut world = World::start();
    let mut server = world.welcomed().await;
    server.send(ServerFrame::Assign(assignment(1)));
    let process = world.started().await;
    let chunk = vec![b'x'; 64 << 10];
    let mut printed = 0u64;
    while tokio::time::timeout(Duration::from_secs(1), process.print(Stream::Stdout, &chunk))
        .await
        .is_ok()
    {
        printed += chunk.len() as u64;
    }
    // The spool's limit, and what waits in the pipe.
    assert!((2 << 20..(2 << 20) + (256 << 10)).contains(&printed), "{printed}");
    let mut out = 0;
    while let Ok(batch) = server.output.try_recv() {
        assert!(batch.piece.data.len() <= 256 << 10);
        out = batch.piece.end();
    }
    assert!(out <= 1 << 20, "{out}");
    // Another job is not held up.
    server.send(ServerFrame::Assign(assignment(2)));
    world.started().await.end(ProcessEnd::Exited(0));
    server.result().await;
    // And the flood goes on once the server has taken some.
    server.answer_output(out, OutputVerdict::Stored);
    process.print(Stream::Stdout, &chunk).await;
    assert_eq!(piece(&mut server).await.start, out);
}

#[tokio::test(start_paused = true)]
async fn a_drained_worker_leaves_as_soon_as_its_last_output_is_stored() {
    let mut world = World::start();
    let mut server = world.welcomed().await;
    server.send(ServerFrame::Assign(assignment(1)));
    let process = world.started().await;
    process.print(Stream::Stdout, b"abc").await;
    process.end(ProcessEnd::Exited(0));
    let result = server.result().await;
    server.send(ServerFrame::Drain);
    server.send(ServerFrame::ResultAnswer {
        key: result.key,
        verdict: ResultVerdict::Applied,
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    let before = tokio::time::Instant::now();
    let end = piece(&mut server).await.end();
    server.answer_output(end, OutputVerdict::Stored);
    assert_eq!(server.frame().await, WorkerFrame::Leaving);
    assert!(before.elapsed() < Duration::from_millis(100));
}
