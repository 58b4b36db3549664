//! UNSAFE. A running process of somebody else, seized, run from system call to system call, and killed just before one.
#![allow(unsafe_code)]

use std::io;

/// A process that this thread traces.
pub struct Seized {
    pid: libc::pid_t,
}

fn asked(result: libc::c_long, what: &str) -> io::Result<libc::c_long> {
    if result == -1 {
        let error = io::Error::last_os_error();
        return Err(io::Error::new(error.kind(), format!("{what}: {error}")));
    }
    Ok(result)
}

impl Seized {
    /// Stops a process wherever it is. It dies with its tracer.
    ///
    /// # Errors
    /// It is gone, or may not be traced.
    pub fn of(pid: i32) -> io::Result<Seized> {
        let options = libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_EXITKILL;
        // SAFETY: the request reads its arguments only.
        asked(unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, 0, options) }, "seizing a process")?;
        // SAFETY: as above.
        asked(unsafe { libc::ptrace(libc::PTRACE_INTERRUPT, pid, 0, 0) }, "stopping a process")?;
        let seized = Seized { pid };
        seized.wait()?;
        Ok(seized)
    }

    /// Waits for its next stop; `None` when it has ended.
    fn wait(&self) -> io::Result<Option<i32>> {
        let mut status = 0;
        // SAFETY: the status is written before the call returns.
        asked(unsafe { libc::waitpid(self.pid, &raw mut status, libc::__WALL) }.into(), "waiting for it")?;
        Ok(libc::WIFSTOPPED(status).then(|| libc::WSTOPSIG(status)))
    }

    /// Runs it until it is about to remove a file for the time `nth` (from 0). False when it ends before.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn run_until_removal(&mut self, nth: usize) -> io::Result<bool> {
        let (mut removals, mut signal) = (0, 0);
        loop {
            // SAFETY: the request reads its arguments only.
            asked(unsafe { libc::ptrace(libc::PTRACE_SYSCALL, self.pid, 0, signal) }, "going on")?;
            signal = 0;
            match self.wait()? {
                None => return Ok(false),
                Some(stop) if stop == libc::SIGTRAP | 0x80 => {
                    if self
                        .enters()?
                        .is_some_and(|call| [libc::SYS_unlink, libc::SYS_unlinkat].contains(&call))
                    {
                        if removals == nth {
                            return Ok(true);
                        }
                        removals += 1;
                    }
                }
                Some(libc::SIGTRAP | libc::SIGSTOP) => {}
                Some(other) => signal = other,
            }
        }
    }

    /// The system call at whose entry it stands.
    fn enters(&self) -> io::Result<Option<libc::c_long>> {
        // SAFETY: the structure is plain data, and the kernel writes no more of it than its size, which it is told.
        let told = unsafe {
            let mut told: libc::ptrace_syscall_info = std::mem::zeroed();
            let size = std::mem::size_of_val(&told);
            let got = libc::ptrace(libc::PTRACE_GET_SYSCALL_INFO, self.pid, size, &raw mut told);
            asked(got, "asking for the system call")?;
            told
        };
        // SAFETY: all variants are plain data, zeroed where the kernel wrote nothing.
        let number = unsafe { told.u.entry.nr };
        Ok((told.op == libc::PTRACE_SYSCALL_INFO_ENTRY).then_some(number as libc::c_long))
    }

    /// Kills it where it stands. Its parent hears of it only now.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn kill(self) -> io::Result<()> {
        // SAFETY: a plain call; a traced process is not reaped by anybody else, so the number is its own.
        asked(unsafe { libc::kill(self.pid, libc::SIGKILL) }.into(), "killing it")?;
        while self.wait()?.is_some() {}
        Ok(())
    }
}
