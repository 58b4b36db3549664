//! What the kernel makes of an agent's confinement: prepared once, in the supervisor, for all starts of an agent.
//!
//! What lives here: which means is chosen for which key, and what is said when there is none. What does not: the keys
//! (`config/confine.rs`), cgroups (`confine/cgroup.rs`), filters of system calls (`confine/seccomp.rs`), paths (`confine/landlock.rs`),
//! namespaces (`confine/namespaces.rs`), who runs a swarm (`confine/owner.rs`), secrets (`confine/secrets.rs`), and what the child does (`spawn/confine.rs`).

mod cgroup;
mod landlock;
mod namespaces;
mod owner;
mod seccomp;
mod secrets;

use crate::config::{Agent, Confinement, Limits, Profile, Scheduling, Trust};
use crate::spawn::{Cage, ORDINARY, Policy, Urgency};
use cgroup::{Cgroups, Controller};
pub use cgroup::{abandoned as abandoned_cgroups, give_room_back, sweep_of as sweep_cgroups_of};
use namespaces::Namespaces;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
pub use owner::Owner;
pub use secrets::SECRET_ENV;
pub(crate) use secrets::handed;
use std::collections::VecDeque;
use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

/// The first of the user numbers that hostile agents of root's swarms get when the file names no user: nobody else has these.
const OWN_UID_BASE: u32 = 0x7000_0000;

/// Everything prepared so far.
#[derive(Default)]
pub struct Cages {
    cgroups: Cgroups,
    namespaces: Namespaces,
    /// By agent.
    made: Vec<Option<Made>>,
    /// The last ones that are nobody's own: many agents share them.
    lately: VecDeque<(Arc<Confinement>, Arc<Cage>)>,
}

/// So many cages are looked through for the one of the next agent.
const LATELY_MAX: usize = 16;

struct Made {
    of: Arc<Confinement>,
    cage: Arc<Cage>,
    lacks: Vec<String>,
}

impl Cages {
    /// Before anybody is started: prepares for what these agents are bounded by.
    pub fn for_all(agents: &[Agent]) -> Cages {
        cgroup::make_room(agents.iter().any(|agent| agent.confinement.limits.want_cgroup()));
        Cages::default()
    }

    /// The cage of an agent's processes, made now or before; and, when made now, what of the file could not be applied. `urgency` is that of
    /// who makes the processes, always the same.
    ///
    /// # Errors
    /// What the kernel or the machine refused, and to what it belongs.
    pub fn of(
        &mut self,
        urgency: Urgency,
        agent: u32,
        name: &str,
        config: &Agent,
    ) -> io::Result<(Arc<Cage>, Vec<String>)> {
        let index = agent as usize;
        if let Some(Some(made)) = self.made.get(index)
            && made.of == config.confinement
        {
            return Ok((made.cage.clone(), Vec::new()));
        }
        let (cage, lacks) = prepare(&mut self.cgroups, &mut self.namespaces, urgency, agent, name, config)?;
        let cage = self.shared(&config.confinement, cage);
        let made = Made { of: config.confinement.clone(), cage: cage.clone(), lacks: lacks.clone() };
        if self.made.len() <= index {
            self.made.resize_with(index + 1, || None);
        }
        self.made[index] = Some(made);
        Ok((cage, lacks))
    }

    /// Another agent's cage that is the same, if this one is nobody's own: without a cgroup, a number of its own, and rules that are made
    /// for a program.
    fn shared(&mut self, of: &Arc<Confinement>, cage: Cage) -> Arc<Cage> {
        let is_own = !cage.cgroups.is_empty() || cage.landlock.is_some() || of.trust == Trust::Hostile;
        if is_own {
            return Arc::new(cage);
        }
        let same = |known: &(Arc<Confinement>, Arc<Cage>)| known.0 == *of && known.1.rlimits == cage.rlimits;
        if let Some((_, known)) = self.lately.iter().find(|known| same(known)) {
            return known.clone();
        }
        let cage = Arc::new(cage);
        self.lately.truncate(LATELY_MAX - 1);
        self.lately.push_front((of.clone(), cage.clone()));
        cage
    }

    /// Kills whatever is in an agent's cgroup, standbys and all. False when it has none in which that can be done.
    pub fn kill_all(&self, agent: u32) -> bool {
        let cage = self.made.get(agent as usize).and_then(Option::as_ref).map(|made| &made.cage);
        let kill = cage.and_then(|cage| cage.kill.as_ref());
        kill.is_some_and(|kill| rustix::io::write(kill, b"1").is_ok())
    }

    /// Whom an agent's processes run as, if not as the supervisor, once one was made.
    pub fn identity(&self, agent: u32) -> Option<(u32, u32)> {
        self.made.get(agent as usize)?.as_ref()?.cage.identity
    }

    /// What of an agent's confinement could not be applied.
    pub fn lacks(&self, agent: u32) -> &[String] {
        self.made.get(agent as usize).and_then(Option::as_ref).map_or(&[], |made| &made.lacks)
    }
}

/// Tries the cgroups that limits need, as a start does, but leaves alone what former runs left; yields where they are, or which limits get
/// none, and why.
pub(crate) fn try_cgroups() -> Result<String, String> {
    cgroup::make_room(true);
    let mut cgroups = Cgroups::beside();
    let tried = [(Controller::Memory, 1 << 30), (Controller::Pids, 1 << 10), (Controller::Cpu, 100)].map(
        |(controller, amount)| match cgroups.join(controller, "doctor", amount) {
            Ok((made, _)) => {
                let folder = made.parent().unwrap_or(&made);
                Ok(format!("{} in {}", controller.key(), folder.display()))
            }
            Err(why) => Err(format!("{}: {why}", controller.key())),
        },
    );
    drop(cgroups);
    let lacks: Vec<&str> =
        tried.iter().filter_map(|came| came.as_deref().err()).map(String::as_str).collect();
    match lacks.is_empty() {
        true => Ok(tried.into_iter().flatten().collect::<Vec<_>>().join(", ")),
        false => Err(lacks.join("; ")),
    }
}

/// The user number of a hostile agent that was given none: swarms of one machine have different owners.
fn own_uid(owner: u32, agent: u32) -> u32 {
    OWN_UID_BASE + ((owner & 0xffff) << 12) + (agent & 0xfff)
}

fn prepare(
    cgroups: &mut Cgroups,
    namespaces: &mut Namespaces,
    urgency: Urgency,
    agent: u32,
    name: &str,
    config: &Agent,
) -> io::Result<(Cage, Vec<String>)> {
    let confinement = &config.confinement;
    let root = rustix::process::geteuid().is_root();
    let mut lacks = Vec::new();
    let mut identity = confinement.identity.map(|i| (i.uid, i.gid));
    if confinement.trust == Trust::Hostile && identity.is_none() {
        if root {
            let uid = own_uid(cgroups.owner().folded(), agent);
            identity = Some((uid, uid));
        } else {
            lacks.push(
                "a user of its own (the supervisor is not root): files of this user are within its reach"
                    .into(),
            );
        }
    }
    // Who stays what the supervisor is needs no change.
    let identity = identity.filter(|&(uid, gid)| root || (uid, gid) != own_numbers());
    let foreign = identity.is_some_and(|(uid, _)| uid != 0);
    let mut cage = Cage {
        identity,
        cwd: match &confinement.cwd {
            Some(cwd) => Some(CString::new(cwd.as_os_str().as_bytes()).map_err(io::Error::other)?),
            None => None,
        },
        drops_capabilities: confinement.trust != Trust::Trusted,
        no_new_privs: confinement.no_new_privs,
        nice: confinement.limits.nice,
        scheduling: confinement.limits.scheduling.map(kernels),
        cpus: mask(&confinement.limits.cpus),
        ..Cage::default()
    };
    if urgency.is_some() {
        // Its start is urgent, too, if it is trusted.
        cage.scheduling = (confinement.trust != Trust::Trusted).then_some(settled(config));
    }
    if confinement.trust == Trust::Hostile {
        match namespaces.permitted() {
            Ok(flags) => cage.namespaces = flags,
            Err(why) => lacks.push(format!(
                "namespaces of its own ({why}): its filter alone keeps it from network and System V memory"
            )),
        }
    }
    bound(&mut cage, cgroups, &confinement.limits, name, foreign, &mut lacks);
    if confinement.trust == Trust::Isolated && confinement.limits.open_files.is_none() {
        cage.rlimits.extend(half_of_descriptors());
    }
    cage.filters = seccomp::filters(confinement.profile)?;
    if confinement.profile != Profile::None && cage.filters.is_empty() {
        lacks.push("seccomp: there is no filter for this kind of processor".into());
    }
    if confinement.reach.is_some() || confinement.trust != Trust::Trusted {
        let program = config.command.first().map_or("/", String::as_str);
        let (rules, lack) = landlock::rules(confinement.reach.as_ref(), confinement.trust, program)?;
        cage.landlock = rules;
        lacks.extend(lack);
    }
    Ok((cage, lacks))
}

fn own_numbers() -> (u32, u32) {
    (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
}

/// Chooses a cgroup where there is one, else a bound of the process, else says that there is none.
fn bound(
    cage: &mut Cage,
    cgroups: &mut Cgroups,
    limits: &Limits,
    name: &str,
    foreign: bool,
    lacks: &mut Vec<String>,
) {
    let wanted = [
        (Controller::Memory, limits.memory_bytes),
        (Controller::Pids, limits.processes.map(u64::from)),
        (Controller::Cpu, limits.cpu_percent.map(u64::from)),
    ];
    let mut joined = Vec::new();
    for (controller, amount) in wanted {
        let Some(amount) = amount else { continue };
        match cgroups.join(controller, name, amount) {
            // One folder may serve several controllers: it is joined once.
            Ok((folder, _)) if joined.contains(&folder) => {}
            Ok((folder, procs)) => {
                cage.kill = cage.kill.take().or_else(|| cgroup::kill_file(&folder));
                joined.push(folder);
                cage.cgroups.push(procs);
            }
            Err(why) => match instead(controller, amount, foreign) {
                Ok(limit) => cage.rlimits.push(limit),
                Err(then) => lacks.push(format!("{}: {why}{then}", controller.key())),
            },
        }
    }
    // Who is bounded in its processes may make many.
    if limits.processes.is_some()
        && cage.kill.is_none()
        && let Some((folder, procs)) = cgroups.join_plain(name)
    {
        cage.kill = cgroup::kill_file(&folder);
        cage.cgroups.push(procs);
    }
    let seconds = limits.cpu_time.map(|time| time.as_secs().max(1));
    let plain = [
        (Resource::RLIMIT_CPU, seconds),
        (Resource::RLIMIT_NOFILE, limits.open_files.map(u64::from)),
        (Resource::RLIMIT_FSIZE, limits.file_size_bytes),
        (Resource::RLIMIT_CORE, limits.core_size_bytes),
    ];
    cage.rlimits.extend(plain.into_iter().filter_map(|(resource, amount)| Some(limit(resource, amount?))));
}

/// A bound of a process. Nobody but root raises a hard one: what the supervisor itself is bound by is tighter, and holds.
fn limit(resource: Resource, amount: u64) -> (u32, u64) {
    (resource as u32, amount.min(hard_limit(resource).unwrap_or(u64::MAX)))
}

/// Half as many descriptors as the supervisor may have. The kernel counts those under way on sockets for all processes of a user together, and
/// each may send more up to its own bound: who has a lower one never keeps the supervisor from handing some over.
fn half_of_descriptors() -> Option<(u32, u64)> {
    let resource = Resource::RLIMIT_NOFILE;
    hard_limit(resource).map(|most| limit(resource, most / 2))
}

/// The bound of the process that stands in for a cgroup.
///
/// RLIMIT_DATA and not RLIMIT_AS: it counts what the process allocates for itself, and not the lanes, the code, and address space
/// that allocators and threads merely reserve.
fn instead(controller: Controller, amount: u64, foreign: bool) -> Result<(u32, u64), &'static str> {
    match controller {
        Controller::Memory => Ok(limit(Resource::RLIMIT_DATA, amount)),
        Controller::Pids if foreign || !rustix::process::geteuid().is_root() => {
            Ok(limit(Resource::RLIMIT_NPROC, amount))
        }
        Controller::Pids => Err("; and the kernel counts no processes of root: give it a `user`"),
        Controller::Cpu => Err("; `limits.cpu_time`, `nice` and `cpus` need none"),
    }
}

/// The bound that only root raises; `None` where the kernel knows none, or tells none.
pub(crate) fn hard_limit(resource: Resource) -> Option<u64> {
    getrlimit(resource).ok().map(|(_, hard)| hard).filter(|&hard| hard != RLIM_INFINITY)
}

/// How an agent is scheduled once it is ready.
pub fn settled(config: &Agent) -> Policy {
    config.confinement.limits.scheduling.map_or(ORDINARY, kernels)
}

fn kernels(scheduling: Scheduling) -> (i32, i32) {
    match scheduling {
        Scheduling::Other => (libc::SCHED_OTHER, 0),
        Scheduling::Batch => (libc::SCHED_BATCH, 0),
        Scheduling::Idle => (libc::SCHED_IDLE, 0),
        Scheduling::Fifo(priority) => (libc::SCHED_FIFO, priority as i32),
        Scheduling::Rr(priority) => (libc::SCHED_RR, priority as i32),
    }
}

/// The kernel's mask of processors.
fn mask(cpus: &[u32]) -> Vec<u64> {
    let words = cpus.iter().max().map_or(0, |max| *max as usize / 64 + 1);
    let mut mask = vec![0; words];
    for cpu in cpus {
        mask[*cpu as usize / 64] |= 1 << (cpu % 64);
    }
    mask
}

#[cfg(test)]
mod tests;
