//! UNSAFE. Ends whole trees of processes: used by the keeper and the guard, so without the heap.

use crate::ended::Ending;
use libc::{c_int, pid_t};

/// How a child ended, if it is dead, which stays to be reaped. Somebody who is no child counts as killed.
pub fn ended(pid: pid_t) -> Option<Ending> {
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    loop {
        // SAFETY: plain numbers, of which all zeros is a value.
        let mut seen: libc::siginfo_t = unsafe { std::mem::zeroed() };
        // SAFETY: fills a struct that lives here.
        let asked = unsafe { libc::waitid(libc::P_PID, pid as libc::id_t, &raw mut seen, flags) };
        if asked != 0 {
            match std::io::Error::last_os_error().kind() {
                std::io::ErrorKind::Interrupted => continue,
                _ => return Some(Ending::Signalled(libc::SIGKILL)),
            }
        }
        // SAFETY: `waitid` has filled the part of a child's end, or left all zeros.
        let (who, status) = unsafe { (seen.si_pid(), seen.si_status()) };
        return match seen.si_code {
            _ if who == 0 => None,
            libc::CLD_EXITED => Some(Ending::Exited(status)),
            _ => Some(Ending::Signalled(status)),
        };
    }
}

/// Reaps a child if it is dead. Somebody who is no child any more counts as killed.
pub fn reap_if_dead(pid: pid_t) -> Option<Ending> {
    let mut status = 0;
    match wait(pid, &mut status, libc::WNOHANG) {
        0 => None,
        -1 => Some(Ending::Signalled(libc::SIGKILL)),
        _ if libc::WIFEXITED(status) => Some(Ending::Exited(libc::WEXITSTATUS(status))),
        _ => Some(Ending::Signalled(libc::WTERMSIG(status))),
    }
}

/// Kills and reaps all children of this process, and all that fall to it meanwhile, until there are none. For a process with one
/// thread that is a sub-reaper.
pub fn end_children() {
    loop {
        kill_children();
        // One at least is ended, or there is none.
        if !reap_one(0) {
            return;
        }
        while reap_one(libc::WNOHANG) {}
    }
}

/// False when there is no child (or, with WNOHANG, no dead one).
fn reap_one(flags: c_int) -> bool {
    wait(-1, &mut 0, flags) > 0
}

/// Waits for a child, however often that is interrupted.
fn wait(pid: pid_t, status: &mut c_int, flags: c_int) -> pid_t {
    loop {
        // SAFETY: fills a word that lives here.
        let waited = unsafe { libc::waitpid(pid, status, flags) };
        if waited != -1 || std::io::Error::last_os_error().kind() != std::io::ErrorKind::Interrupted {
            return waited;
        }
    }
}

/// Sends SIGKILL to every child, and to the process group that it leads.
fn kill_children() {
    each_child(|pid| {
        // SAFETY: plain calls. A child that was not reaped keeps its number, and the number of the group that it leads.
        unsafe {
            libc::kill(-pid, libc::SIGKILL);
            libc::kill(pid, libc::SIGKILL);
        }
    });
}

/// Calls `with` for each child, as the kernel lists them.
fn each_child(mut with: impl FnMut(pid_t)) {
    // SAFETY: a constant path; the descriptor is closed below.
    let list =
        unsafe { libc::open(c"/proc/thread-self/children".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
    if list < 0 {
        return;
    }
    let (mut bytes, mut number): ([u8; 4096], pid_t) = ([0; 4096], 0);
    loop {
        // SAFETY: reads into bytes that live here.
        let got = unsafe { libc::read(list, bytes.as_mut_ptr().cast(), bytes.len()) };
        if got <= 0 {
            break;
        }
        // Numbers, with a space behind each.
        for &byte in &bytes[..got as usize] {
            if byte.is_ascii_digit() {
                number = number.wrapping_mul(10).wrapping_add(pid_t::from(byte - b'0'));
            } else if number > 0 {
                with(number);
                number = 0;
            }
        }
    }
    // SAFETY: opened above.
    unsafe { libc::close(list) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn end_of_a_child_is_told_as_often_as_it_is_asked_for_until_it_is_reaped() {
        for (script, end) in [("exit 3", Ending::Exited(3)), ("kill -9 $$", Ending::Signalled(9))] {
            let mut child = std::process::Command::new("/bin/sh")
                .args(["-c", &format!("read -r line; {script}")])
                .stdin(std::process::Stdio::piped())
                .spawn()
                .expect("a child");
            let pid = child.id() as pid_t;
            assert_eq!(ended(pid), None, "it reads");
            drop(child.stdin.take());
            let told = std::iter::repeat_with(|| ended(pid)).find_map(|ended| ended);
            assert_eq!([told, ended(pid), reap_if_dead(pid)], [Some(end); 3]);
            assert_eq!(ended(pid), Some(Ending::Signalled(libc::SIGKILL)), "it is no child any more");
            assert!(child.wait().is_err(), "it was reaped");
        }
    }
}
