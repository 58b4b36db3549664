//! What surrounds a command line: shells' completions, manual pages, a systemd unit. All made from what is there: the
//! command line's own definition, and the swarm file.

use std::path::Path;
use std::time::Duration;

use clap::CommandFactory;

use super::{Failure, Shoal, print};
use crate::config::{self, SwarmFile};
use crate::needs;
use crate::topology::places;

/// What a unit waits beyond the agents' own time-outs before systemd kills.
const STOP_BEYOND: Duration = Duration::from_secs(10);

/// The command line without the commands that are for ourselves.
fn shown() -> clap::Command {
    let whole = Shoal::command();
    let commands = whole.get_subcommands().filter(|command| !command.is_hide_set());
    clap::Command::new("shoal")
        .version(env!("CARGO_PKG_VERSION"))
        .args(whole.get_arguments())
        .subcommands(commands)
        .about(whole.get_about().cloned().unwrap_or_default())
}

/// Prints a shell's completions.
pub(super) fn completions(shell: clap_complete::Shell) -> Result<(), Failure> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut shown(), "shoal", &mut text);
    print(&text).map(|_| ())
}

/// Prints the manual page, or writes one for each command into a folder.
pub(super) fn man(dir: Option<&Path>) -> Result<(), Failure> {
    let Some(dir) = dir else {
        let mut page = Vec::new();
        let rendered = clap_mangen::Man::new(Shoal::command()).render(&mut page);
        rendered.map_err(|error| Failure::failed(format!("making the page: {error}")))?;
        return print(&page).map(|_| ());
    };
    let written = std::fs::create_dir_all(dir).and_then(|()| clap_mangen::generate_to(Shoal::command(), dir));
    written.map_err(|error| Failure::failed(format!("writing pages into {}: {error}", dir.display())))
}

/// Prints a systemd unit for a swarm file.
pub(super) fn unit(file: &Path) -> Result<(), Failure> {
    let file = config::read(file).map_err(|error| Failure::bad_input(error.to_string()))?;
    let binary = config::own_binary().map_err(Failure::failed)?;
    let path = std::path::absolute(&file.path);
    let path = path.map_err(|error| Failure::failed(format!("finding {}: {error}", file.path.display())))?;
    let Some(path) = path.to_str() else {
        return Err(Failure::bad_input("systemd wants a swarm file whose path is UTF-8".to_owned()));
    };
    print(unit_text(&file, &binary, path).as_bytes()).map(|_| ())
}

fn unit_text(file: &SwarmFile, binary: &str, path: &str) -> String {
    let folder = Path::new(path).parent().and_then(Path::to_str).unwrap_or("/");
    let (binary, path, folder) = (quoted(binary), quoted(path), escaped(folder));
    let name = &file.name;
    // Stages stop one after the other, the agents of one together.
    let stop: Duration = file.agents.iter().map(|agent| agent.stop_timeout).sum::<Duration>() + STOP_BEYOND;
    // So far `shoal scale` may go without starting anybody else again, and a limit cannot be raised while the swarm runs.
    let mut largest = file.clone();
    largest.agents.iter_mut().for_each(|agent| agent.replicas = places(agent));
    let (stop, descriptors) = (stop.as_secs() + 1, needs::descriptors(&largest));
    format!(
        "# Made by `shoal unit`. Install: ~/.config/systemd/user/shoal-{name}.service (user) or\n\
         # /etc/systemd/system/shoal-{name}.service (system: add User=), then `systemctl [--user] enable --now shoal-{name}`.\n\
         [Unit]\n\
         Description=Shoal swarm {name}\n\
         Documentation=man:shoal(1)\n\
         \n\
         [Service]\n\
         Type=notify\n\
         # The supervisor may be a child of the process that is started.\n\
         NotifyAccess=all\n\
         ExecStart={binary} up {path}\n\
         ExecReload={binary} --swarm {name} reload\n\
         WorkingDirectory={folder}\n\
         # A first SIGTERM stops in order, sources first.\n\
         KillMode=mixed\n\
         TimeoutStopSec={stop}\n\
         TimeoutStartSec=infinity\n\
         WatchdogSec=30\n\
         Restart=on-failure\n\
         # A swarm file or a start that is wrong does not get right by itself.\n\
         RestartPreventExitStatus=2\n\
         LimitNOFILE={descriptors}\n\
         Delegate=yes\n\
         \n\
         [Install]\n\
         WantedBy=default.target\n"
    )
}

/// A value in which systemd replaces nothing.
fn escaped(text: &str) -> String {
    text.replace('%', "%%")
}

/// One word of a command line of systemd.
fn quoted(text: &str) -> String {
    let text = escaped(text).replace('$', "$$").replace('\\', "\\\\").replace('"', "\\\"");
    if text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-+=:@%$".contains(c)) {
        text
    } else {
        format!("\"{text}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_unit_are_quoted_as_systemd_reads_them() {
        assert_eq!(quoted("/a/b-c.toml"), "/a/b-c.toml");
        assert_eq!(quoted("/a b"), "\"/a b\"");
        assert_eq!(quoted("/50%"), "/50%%");
        assert_eq!(quoted("/$x\"\\"), "\"/$$x\\\"\\\\\"");
    }
}
