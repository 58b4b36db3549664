//! Real processes: what they begin with, how they end, and what is left of their making.

use super::*;
use rustix::net::{AddressFamily, SocketType};
use rustix::process::Signal;

fn order(command: &[&str]) -> (Order, OwnedFd, OwnedFd) {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let order = Order {
        command: command.iter().map(|c| c_string(c).unwrap()).collect(),
        environment: environment(|_| true, &[("SHOAL_TEST", "yes")]).unwrap(),
        control: theirs.into(),
        stdout: write.try_clone().unwrap(),
        stderr: write,
        along: Vec::new(),
        cage: Arc::default(),
    };
    (order, read, ours.into())
}

#[test]
fn child_costs_no_table_of_descriptors_and_leaves_its_parents_as_it_was() {
    // Goal: a start does not copy, and then close, what this process has open. Method: hundreds of descriptors, a child, and both
    // tables are looked at; its own ends as it ends, so nothing holds its pipe open.
    let (read, _write) = rustix::pipe::pipe().unwrap();
    let mut spawner = Spawner::new().unwrap();
    // Far above its low numbers, which lie where the tests beside this one leave room.
    let low_end = spawner.slots.iter().map(AsRawFd::as_raw_fd).max().unwrap() as usize + 1;
    let far = 512.max(low_end.next_power_of_two() * 4);
    let many: Vec<OwnedFd> = (0..400).map(|_| fcntl_dupfd_cloexec(&read, far as RawFd).unwrap()).collect();
    let table = |pid: u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|l| l.strip_prefix("FDSize:")).unwrap().trim().to_owned();
        line.parse::<usize>().unwrap()
    };
    let (order, output, _ours) = order(&["/bin/sh", "-c", "echo on; read -r line <&3"]);
    let child = spawner.spawn(order).unwrap();
    let mut word = [0; 3];
    io::Read::read_exact(&mut std::fs::File::from(output.try_clone().unwrap()), &mut word).unwrap();
    assert!(table(std::process::id()) > far && table(child.pid as u32) < far, "its table is small");
    for fd in &many {
        assert_eq!(rustix::io::fcntl_getfd(fd), Ok(rustix::io::FdFlags::CLOEXEC), "the parent's is whole");
    }
    kill_tree(&child);
    io::Read::read_to_end(&mut std::fs::File::from(output), &mut Vec::new()).unwrap();
    assert_eq!(reap(&child).unwrap().ending, Ending::Signalled(9));
    let refused = spawner.spawn(self::order(&["/nowhere/at/all"]).0);
    assert!(refused.is_err());
    let is_null = |fd: &OwnedFd| rustix::fs::fstat(fd).unwrap().st_rdev;
    assert!(spawner.slots.iter().all(|slot| is_null(slot) == is_null(&spawner.null)), "nothing is kept");
}

fn output_of(command: &[&str]) -> (String, Ending) {
    let (order, read, _ours) = order(command);
    let child = Spawner::new().unwrap().spawn(order).unwrap();
    let mut text = String::new();
    io::Read::read_to_string(&mut std::fs::File::from(read), &mut text).unwrap();
    (text, reap(&child).unwrap().ending)
}

#[test]
fn child_whose_maker_died_and_has_a_successor_executes_nothing() {
    // Goal: who leaves the common table late takes nothing along that a successor gives its own child. Method: the word of how many
    // supervisors there were moves before the child is there, as if it had not run until then.
    let journal = Arc::new(Journal::create(64, &[], &[]).unwrap());
    let mut spawner = Spawner::new().unwrap();
    spawner.life = Some((journal.clone(), 1));
    for (lives, status, said) in [(1, 0, "on\n"), (2, 127, "")] {
        keeper::set_word(&journal, Word::Lives, lives);
        let (order, output, _ours) = order(&["/bin/sh", "-c", "echo on"]);
        let child = spawner.spawn(order).unwrap();
        let mut text = String::new();
        io::Read::read_to_string(&mut std::fs::File::from(output), &mut text).unwrap();
        assert_eq!((reap(&child).unwrap().ending, text.as_str()), (Ending::Exited(status), said), "{lives}");
    }
}

#[test]
fn child_has_its_environment_its_descriptors_and_nothing_else() {
    let (text, ending) = output_of(&["/bin/sh", "-c", "echo $SHOAL_TEST; ls /proc/self/fd; exit 3"]);
    assert_eq!(ending, Ending::Exited(3));
    // `ls` itself has one more descriptor: the folder that it lists.
    assert_eq!(text.split_whitespace().collect::<Vec<_>>(), ["yes", "0", "1", "2", "3", "4"]);
}

#[test]
fn child_begins_with_default_handlers_no_blocked_signals_and_its_own_group() {
    // `cat` installs no handlers of its own.
    let (text, _) = output_of(&["/bin/cat", "/proc/self/status", "/proc/self/stat"]);
    let field = |name: &str| text.lines().find_map(|l| l.strip_prefix(name)).map(str::trim);
    for mask in ["SigBlk:", "SigIgn:", "SigCgt:"] {
        assert_eq!(field(mask), Some("0000000000000000"), "{mask} {text}");
    }
    let stat: Vec<&str> = text.lines().last().unwrap().split(' ').collect();
    assert_eq!(stat[0], stat[4], "it leads its own process group");
}

#[test]
fn command_that_cannot_be_executed_is_an_error_at_once() {
    let (order, _read, _ours) = order(&["/nowhere/at/all"]);
    let error = Spawner::new().unwrap().spawn(order).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
}

#[test]
fn reaping_tells_what_the_child_had_used() {
    let (order, read, _ours) =
        order(&["/bin/sh", "-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; kill -SEGV $$"]);
    let child = Spawner::new().unwrap().spawn(order).unwrap();
    io::Read::read_to_end(&mut std::fs::File::from(read), &mut Vec::new()).unwrap();
    let Ended { ending, usage, .. } = reap(&child).unwrap();
    let usage = usage.expect("it is our own child");
    assert_eq!(ending, Ending::Signalled(11));
    assert!(usage.user_us + usage.system_us > 1000 && usage.minor_faults > 0, "{usage:?}");
    assert!((200..1 << 20).contains(&usage.max_rss_kib), "{usage:?}");
}

#[test]
fn adopted_process_is_who_made_the_pair_and_is_never_signalled() {
    let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let child = Child::adopt(&ours).unwrap();
    assert_eq!(child.pid, std::process::id() as i32);
    // Either would end this test.
    kill_tree(&child);
    signal(&child, libc::SIGTERM);
    assert_eq!(reap(&child).unwrap().ending, Ending::Exited(0));
}

/// Nobody at its other end has the number that the kernel gives where who made it is in another namespace: 0.
#[test]
fn adopted_process_that_has_no_number_here_is_refused_and_told() {
    let unpaired = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
    let error = Child::adopt(&unpaired).unwrap_err().to_string();
    assert!(error.contains("has no process number here") && error.contains("same namespace"), "{error}");
}

#[test]
fn killed_child_takes_its_group_along() {
    let (order, read, _ours) = order(&["/bin/sh", "-c", "sleep 1000 & echo started; wait"]);
    let child = Spawner::new().unwrap().spawn(order).unwrap();
    let mut text = [0; 8];
    io::Read::read_exact(&mut std::fs::File::from(read.try_clone().unwrap()), &mut text).unwrap();
    kill_tree(&child);
    // The pipe ends only when the last holder, `sleep`, is gone.
    let mut rest = String::new();
    io::Read::read_to_string(&mut std::fs::File::from(read), &mut rest).unwrap();
    assert_eq!(reap(&child).unwrap().ending, Ending::Signalled(9));
}

#[test]
fn all_children_are_listed_however_many_reads_that_takes() {
    // Numbers of up to seven digits: many times what is read at once.
    let script = "i=0; while [ $i -lt 300 ]; do sleep 1000 & i=$((i+1)); done; echo made; wait";
    let mut command = std::process::Command::new("/bin/sh");
    command.args(["-c", script]).stdout(std::process::Stdio::piped());
    let mut parent =
        std::os::unix::process::CommandExt::process_group(&mut command, 0).spawn().expect("a shell");
    let mut made = [0; 5];
    std::io::Read::read_exact(parent.stdout.as_mut().expect("piped"), &mut made).expect("it makes them");
    let pid = parent.id() as i32;
    let listed = end::children_of(pid);
    let at_once = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("listed");
    let group = rustix::process::Pid::from_raw(pid).expect("a number");
    rustix::process::kill_process_group(group, Signal::KILL).expect("killed");
    parent.wait().expect("ended");
    assert_eq!(listed.len(), 300);
    assert_eq!(
        listed,
        at_once.split_whitespace().map(|n| n.parse().expect("a number")).collect::<Vec<i32>>()
    );
}
