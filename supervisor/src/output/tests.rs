use super::*;
use proptest::prelude::*;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// A pipe as agents' output has it: the reading end does not block.
fn pipe() -> (OwnedFd, File) {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    rustix::fs::fcntl_setfl(&reader, rustix::fs::OFlags::NONBLOCK).unwrap();
    (reader, writer.into())
}

/// Writes, closes, and captures until the end of file.
fn capture_all(capture: &mut Capture, bytes: &[u8], stream: Stream) {
    let (reader, mut writer) = pipe();
    std::thread::scope(|scope| {
        scope.spawn(move || writer.write_all(bytes).unwrap());
        while capture.on_readable(reader.as_fd(), stream).unwrap() == Drained::Open {}
    });
}

fn records(dir: &Path, agent: &str) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for age in (0..FILES_MAX).rev() {
        if let Ok(bytes) = std::fs::read(LogFile::path_of(dir, agent, age)) {
            assert_eq!(bytes.last(), Some(&b'\n'));
            all.extend(bytes[..bytes.len() - 1].split(|b| *b == b'\n').map(<[u8]>::to_vec));
        }
    }
    all
}

/// A record without its time.
fn untimed(record: &[u8]) -> &[u8] {
    assert_eq!(record[23..25], *b"Z ");
    &record[25..]
}

#[test]
fn lines_of_both_streams_are_kept_with_time_and_stream() {
    let dir = tempfile::tempdir().unwrap();
    let mut capture = Capture::new("worker.1", dir.path(), Echo::off());
    capture_all(&mut capture, b"one\n\ntwo", Stream::Out);
    capture_all(&mut capture, b"three\r\n", Stream::Err);
    capture.note("generation 2 started");
    let got = records(dir.path(), "worker.1");
    let got: Vec<&[u8]> = got.iter().map(|r| untimed(r)).collect();
    let want: [&[u8]; 5] = [b"out one", b"out ", b"out two", b"err three\r", b"sup generation 2 started"];
    assert_eq!(got, want);
    let recent: Vec<&str> = capture.recent().collect();
    assert_eq!(recent, ["one", "", "two", "three", "generation 2 started"]);
}

#[test]
fn partial_line_is_flushed_at_close_and_at_drop() {
    let dir = tempfile::tempdir().unwrap();
    let mut capture = Capture::new("a", dir.path(), Echo::off());
    let (reader, mut writer) = pipe();
    writer.write_all(b"half").unwrap();
    assert_eq!(capture.on_readable(reader.as_fd(), Stream::Out).unwrap(), Drained::Open);
    assert_eq!(capture.on_readable(reader.as_fd(), Stream::Out).unwrap(), Drained::Open, "would block");
    assert_eq!(records(dir.path(), "a").len(), 0);
    capture.flush();
    assert_eq!(untimed(&records(dir.path(), "a")[0]), b"out half");
    writer.write_all(b"rest").unwrap();
    capture.on_readable(reader.as_fd(), Stream::Out).unwrap();
    drop(capture);
    assert_eq!(untimed(&records(dir.path(), "a")[1]), b"out rest");
}

/// Goal: no line costs more than its bound. Method: one line of 10 MB; what the files still hold is whole.
#[test]
fn line_of_10_mb_is_cut_marked_and_rotated() {
    let dir = tempfile::tempdir().unwrap();
    let mut capture = Capture::new("a", dir.path(), Echo::off());
    capture_all(&mut capture, &vec![b'x'; 10 << 20], Stream::Out);
    capture_all(&mut capture, b"after\n", Stream::Out);
    let got = records(dir.path(), "a");
    let (last, pieces) = got.split_last().unwrap();
    assert_eq!(untimed(last), b"out after");
    let (end, pieces) = pieces.split_last().unwrap();
    assert!(untimed(end).starts_with(b"out xx"));
    assert!(pieces.iter().all(|p| untimed(p).starts_with(b"out+ x") && p.len() == 25 + 5 + LINE_BYTES_MAX));
    for age in 0..FILES_MAX {
        let len_bytes = std::fs::metadata(LogFile::path_of(dir.path(), "a", age)).unwrap().len();
        assert!(len_bytes <= FILE_BYTES_MAX);
    }
    assert!(!LogFile::path_of(dir.path(), "a", FILES_MAX).exists());
    assert!(capture.recent().all(|line| line.len() <= RECENT_LINE_BYTES_MAX + 3));
    assert!(capture.recent().count() <= RECENT_LINES_MAX);
}

#[test]
fn rotation_keeps_the_latest_records_without_a_gap() {
    let dir = tempfile::tempdir().unwrap();
    let mut capture = Capture::new("a", dir.path(), Echo::off());
    let lines_count = 150_000;
    let text: String = (0..lines_count).map(|n| format!("line {n:08}\n")).collect();
    capture_all(&mut capture, text.as_bytes(), Stream::Out);
    let got = records(dir.path(), "a");
    let first = lines_count - got.len();
    assert!(got.len() > 50_000 && first > 0);
    for (n, record) in got.iter().enumerate() {
        assert_eq!(untimed(record), format!("out line {:08}", first + n).as_bytes());
    }
}

#[test]
fn log_of_an_earlier_run_is_appended_to() {
    let dir = tempfile::tempdir().unwrap();
    for text in ["one\n", "two\n"] {
        capture_all(&mut Capture::new("a", dir.path(), Echo::off()), text.as_bytes(), Stream::Out);
    }
    assert_eq!(records(dir.path(), "a").len(), 2);
}

#[test]
fn bytes_that_are_no_text_are_kept_in_the_file_and_escaped_in_the_echo() {
    let dir = tempfile::tempdir().unwrap();
    let (mut reader, writer) = pipe_for_echo();
    let mut capture = Capture::new("a", dir.path(), Echo::to(writer.as_fd()).unwrap());
    let hostile = b"\x1b[2J\x07\xff\xfe\xc2\x9b31m\xe2\x80\xaetab\there\x00\n";
    capture_all(&mut capture, hostile, Stream::Err);
    assert_eq!(untimed(&records(dir.path(), "a")[0]), &[b"err ", &hostile[..hostile.len() - 1]].concat());
    drop((capture, writer));
    let mut shown = String::new();
    reader.read_to_string(&mut shown).unwrap();
    assert_eq!(shown, "a | \\u{1b}[2J\\u{7}��\\u{9b}31m\\u{202e}tab\there\\u{0}\n");
}

fn pipe_for_echo() -> (File, OwnedFd) {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    (reader.into(), writer)
}

fn show(echo: &Echo, text: &str) {
    echo.line("a", format!("2026-11-22T18:07:39.123Z out {text}").as_bytes(), text);
}

#[test]
fn echo_in_objects_shows_what_was_printed_as_logs_do_and_what_was_lost_as_the_log_does() {
    let (mut reader, writer) = pipe_for_echo();
    let echo = Echo::to(writer.as_fd()).unwrap().in_objects("s");
    let long = format!("a \"quoted\"\u{1b} word{}", "x".repeat(1000));
    for _ in 0..100 {
        show(&echo, &long);
    }
    let mut bytes = vec![0; 40_000];
    reader.read_exact(&mut bytes).unwrap();
    show(&echo, "back");
    let lost = echo.lost_count();
    drop((echo, writer));
    reader.read_to_end(&mut bytes).unwrap();
    let objects = std::str::from_utf8(&bytes).unwrap().lines().map(serde_json::from_str::<serde_json::Value>);
    let objects: Vec<_> = objects.map(|object| object.expect("an object a line")).collect();
    let [first, .., remark, back] = &objects[..] else { panic!("{objects:?}") };
    assert_eq!(
        (&first["agent"], &first["stream"], &first["text"]),
        (&"a".into(), &"out".into(), &long.into())
    );
    let text = format!("{lost} lines not shown here: the reader was too slow");
    assert_eq!(
        (&remark["level"], &remark["swarm"], &remark["text"]),
        (&"warn".into(), &"s".into(), &text.into())
    );
    assert_eq!((&back["time"], &back["text"]), (&"2026-11-22T18:07:39.123Z".into(), &"back".into()));
}

/// Goal: a terminal that nobody reads holds up nothing, and what it lost is told. Method: a pipe with a blocking
/// writing end, as the shell gives it, filled to the brim; were the echo to block, the test would hang.
#[test]
fn echo_nobody_reads_loses_lines_says_so_and_leaves_the_shared_descriptor_blocking() {
    let (mut reader, writer) = pipe_for_echo();
    let echo = Echo::to(writer.as_fd()).unwrap();
    let long = "x".repeat(1000);
    for _ in 0..1000 {
        show(&echo, &long);
    }
    let lost = echo.lost_count();
    assert!((900..1000).contains(&lost), "{lost}");
    let flags = rustix::fs::fcntl_getfl(&writer).unwrap();
    assert!(!flags.contains(rustix::fs::OFlags::NONBLOCK));
    let mut bytes = vec![0; 60_000];
    reader.read_exact(&mut bytes).unwrap();
    show(&echo, "back");
    drop((echo, writer));
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest).unwrap();
    bytes.extend(rest);
    let text = String::from_utf8(bytes).unwrap();
    let tail = format!("shoal | {lost} lines not shown here: the reader was too slow\na | back\n");
    assert!(text.ends_with(&tail), "{}", &text[text.len().saturating_sub(200)..]);
    assert_eq!(text.lines().count() as u64, 1000 - lost + 2);
}

#[test]
fn echo_to_a_socket_nobody_reads_does_not_block_either() {
    let (reader, writer) = std::os::unix::net::UnixStream::pair().unwrap();
    let echo = Echo::to(writer.as_fd()).unwrap();
    for _ in 0..5000 {
        show(&echo, &"x".repeat(1000));
    }
    assert!(echo.lost_count() > 0);
    drop(reader);
}

#[test]
fn echo_whose_reader_is_gone_is_given_up() {
    let (reader, writer) = pipe_for_echo();
    let echo = Echo::to(writer.as_fd()).unwrap();
    drop(reader);
    show(&echo, "one");
    show(&echo, "two");
    assert!(echo.lost_count() >= 1);
}

#[test]
fn log_that_cannot_be_written_is_counted_and_stops_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut capture = Capture::new("a", dir.path().join("absent"), Echo::off());
    capture_all(&mut capture, b"one\ntwo\n", Stream::Out);
    let (lost, why) = capture.log_faults();
    assert_eq!((lost, why.unwrap().kind()), (2, io::ErrorKind::NotFound));
    assert_eq!(capture.recent().count(), 2);
}

#[test]
fn symlink_or_pipe_in_place_of_a_log_is_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let victim = dir.path().join("victim");
    std::fs::write(&victim, "x").unwrap();
    std::os::unix::fs::symlink(&victim, dir.path().join("a.log")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        dir.path().join("b.log"),
        rustix::fs::FileType::Fifo,
        0o600.into(),
        0,
    )
    .unwrap();
    for agent in ["a", "b"] {
        let mut capture = Capture::new(agent, dir.path(), Echo::off());
        capture_all(&mut capture, b"one\n", Stream::Out);
        assert_eq!(capture.log_faults().0, 1);
    }
    assert_eq!(std::fs::read(&victim).unwrap(), b"x");
}

#[test]
fn one_call_takes_a_bounded_amount() {
    let dir = tempfile::tempdir().unwrap();
    let mut capture = Capture::new("a", dir.path(), Echo::off());
    let (reader, mut writer) = pipe();
    rustix::pipe::fcntl_setpipe_size(&writer, 1 << 20).unwrap();
    writer.write_all(&b"x\n".repeat(100_000)).unwrap();
    assert_eq!(capture.on_readable(reader.as_fd(), Stream::Out).unwrap(), Drained::Open);
    assert_eq!(records(dir.path(), "a").len(), READ_BYTES_MAX / 2);
}

#[test]
fn time_is_written_as_utc() {
    for (second, text) in [
        (0, "1970-01-01T00:00:00.007Z"),
        (951_782_399, "2000-02-28T23:59:59.007Z"),
        (951_782_400, "2000-02-29T00:00:00.007Z"),
        (1_795_370_859, "2026-11-22T18:07:39.007Z"),
        (4_107_542_400, "2100-03-01T00:00:00.007Z"),
        (1_704_067_199, "2023-12-31T23:59:59.007Z"),
    ] {
        assert_eq!(utc_of(UNIX_EPOCH + Duration::new(second, 7_000_000)), text);
    }
}

#[test]
fn piece_is_not_cut_inside_a_character() {
    let mut lines = Lines::default();
    let text = format!("{}ééé\n", "x".repeat(LINE_BYTES_MAX - 1));
    let pieces = lines.take(text.as_bytes());
    assert_eq!(pieces.len(), 2);
    assert_eq!((pieces[0].bytes.len(), pieces[0].goes_on), (LINE_BYTES_MAX - 1, true));
    assert_eq!(pieces[1].bytes, "ééé".as_bytes());
}

proptest! {
    #[test]
    fn pieces_put_together_are_the_bytes_however_they_arrive(
        lengths in prop::collection::vec(0usize..3 * LINE_BYTES_MAX, 0..6),
        filler in any::<u8>().prop_filter("no end of line", |b| *b != b'\n'),
        chunk in 1usize..20_000,
    ) {
        let text: Vec<u8> = lengths.iter().flat_map(|len| [vec![filler; *len], vec![b'\n']].concat()).collect();
        let mut lines = Lines::default();
        let mut pieces: Vec<Piece> = text.chunks(chunk).flat_map(|part| lines.take(part)).collect();
        pieces.extend(lines.finish());
        let mut back = Vec::new();
        for piece in &pieces {
            prop_assert!(piece.bytes.len() <= LINE_BYTES_MAX);
            back.extend_from_slice(&piece.bytes);
            if !piece.goes_on {
                back.push(b'\n');
            }
        }
        prop_assert_eq!(back, text);
    }
}
