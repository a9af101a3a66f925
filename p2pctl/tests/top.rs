//! `p2pctl top` against a local cluster: its one picture as a golden file, and the screen on a terminal of its own.

mod support;

use rustix::{
    process::{Pid, Signal, kill_process},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Termios, Winsize, tcgetattr, tcsetwinsize},
};
use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Write as _},
    os::unix::ffi::OsStrExt as _,
    process::{Child, Output, Stdio},
    sync::mpsc::{Receiver, channel},
    time::Duration,
};
use support::{Dev, golden::assert_golden, text};

/// What only a defect takes longer than.
const PATIENCE: Duration = Duration::from_secs(20);
/// What the alternate screen is left with.
const LEAVE: &str = "\u{1b}[?1049l";

fn succeeds(output: &Output) -> String {
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// The picture with each figure as `#`, where it stood at the right end of its column, and without what differs between
/// runs: the time, the sums, and how long ago something was.
fn stable(picture: &str) -> String {
    let mut lines = picture.lines();
    let members = lines.next().expect("a line of members");
    let (members, clock) = members.rsplit_once("  ").expect("the time stands to the right");
    assert!(clock.len() == 9 && clock.ends_with('Z'), "{clock}");
    let sums = lines.next().expect("a line of sums");
    assert!(sums.contains(" calls/s  ") && sums.ends_with("seen by worker-1"), "{sums}");
    let mut shown = format!("{}\n", members.trim_end());
    let mut figures_from = None;
    for line in lines {
        match (line.split_whitespace().next().unwrap_or_default(), figures_from) {
            ("NODES", _) => figures_from = line.find("CALLS/S"),
            ("SERVICES", _) => figures_from = None,
            (_, Some(from)) if line.len() > from => {
                let (facts, figures) = line.split_at(from);
                let ends = |(at, c): (usize, char)| c != ' ' && figures[at + 1..].starts_with([' ', '\n']);
                let last = figures.len() - 1;
                let figure = |(at, c)| if at == last || ends((at, c)) { '#' } else { ' ' };
                shown.push_str(&format!(
                    "{facts}{}\n",
                    figures.char_indices().map(figure).collect::<String>()
                ));
                continue;
            }
            _ => {}
        }
        // How long ago it was may have one digit or two.
        let line = line
            .split_once(" ago")
            .map_or(line.to_owned(), |(_, event)| format!("AGO {}", event.trim_start()));
        shown.push_str(&line);
        shown.push('\n');
    }
    shown
}

#[test]
fn top_shows_the_cluster_once_and_live() {
    let dev = Dev::start();
    one_picture_shows_nodes_services_and_events_and_is_data_for_scripts(&dev);
    the_screen_follows_keys_sizes_and_signals_and_gives_the_terminal_back(&dev);
}

fn one_picture_shows_nodes_services_and_events_and_is_data_for_scripts(dev: &Dev) {
    let once = |more: &[&str]| {
        let mut command = dev.worker_command(true, &[&["top", "--once"], more].concat());
        command.env("COLUMNS", "100").output().expect("ran")
    };
    assert_golden("top_once", &stable(&succeeds(&once(&["--sort", "node"]))));

    let json = succeeds(&once(&["-o", "json", "--filter", "worker-1"]));
    let picture: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((&picture["schema"], &picture["kind"]), (&"p2pctl/v1".into(), &"Top".into()));
    let nodes = picture["nodes"].as_array().expect("a list");
    assert_eq!((nodes.len(), &nodes[0]["node_id"]), (1, &"worker-1".into()));
    for figure in ["calls_per_second", "errors_per_second", "gossip_interval_seconds", "process_cpu_ratio"] {
        assert!(nodes[0][figure].is_f64(), "{figure} of {}", nodes[0]);
    }
    assert_eq!(nodes[0]["p99_seconds"], serde_json::Value::Null);
    assert!(picture["events"].is_array() && picture["services"].is_array(), "{picture}");

    for (arguments, exit, why) in [
        (["top"].as_slice(), 2, "--once prints one picture"),
        (&["top", "-o", "json"], 2, "go with --once"),
        (&["top", "--once", "--interval", "10ms"], 2, "from 1s to 1m"),
        (&["top", "--once", "--endpoint", "127.0.0.1:1"], 5, "127.0.0.1:1"),
    ] {
        let output = dev.worker_command(true, &[]).args(arguments).output().expect("ran");
        let errors = text(&output.stderr);
        assert!(output.status.code() == Some(exit) && errors.contains(why), "{:?}: {errors}", output.status);
        assert_eq!(text(&output.stdout), "");
    }
    let stranger = dev.at_worker(false, &["top", "--once"]);
    assert_eq!(stranger.status.code(), Some(4), "{}", text(&stranger.stderr));
}

/// A terminal of 80 by 24, and `p2pctl top` on it.
struct Screen {
    keyboard: File,
    line: File,
    before: Termios,
    child: Child,
    shown: Receiver<Vec<u8>>,
    seen: String,
}

impl Screen {
    fn open(dev: &Dev, environment: &[(&str, &str)]) -> Self {
        let keyboard = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&keyboard).expect("granted");
        unlockpt(&keyboard).expect("unlocked");
        let path = ptsname(&keyboard, Vec::new()).expect("a name");
        let path = std::path::Path::new(std::ffi::OsStr::from_bytes(path.as_bytes()));
        let line = OpenOptions::new().read(true).write(true).open(path).expect("opened");
        tcsetwinsize(&line, Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 }).expect("sized");
        let before = tcgetattr(&line).expect("a terminal");
        let end = || Stdio::from(line.try_clone().expect("a file"));
        let child = dev
            .worker_command(true, &["top", "--interval", "1s"])
            .env("TERM", "xterm-256color")
            .envs(environment.iter().copied())
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .expect("started");
        let keyboard = File::from(keyboard);
        let (mut screen, (sender, shown)) = (keyboard.try_clone().expect("a file"), channel());
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(length) = screen.read(&mut bytes)
                && sender.send(bytes[..length].to_vec()).is_ok()
            {}
        });
        Self { keyboard, line, before, child, shown, seen: String::new() }
    }

    /// Reads until `word` was written.
    fn wait_for(&mut self, word: &str) {
        while !self.seen.contains(word) {
            let more = self.shown.recv_timeout(PATIENCE);
            self.seen.push_str(&text(&more.unwrap_or_else(|_| panic!("{word:?} in {:?}", self.seen))));
        }
    }

    fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).expect("a terminal");
    }

    /// It has ended well, and left the terminal as it was.
    fn ends_well(mut self) -> String {
        let status = self.child.wait().expect("a process of ours");
        self.wait_for(LEAVE);
        assert_eq!(status.code(), Some(0), "{:?}", self.seen);
        let after = tcgetattr(&self.line).expect("a terminal");
        assert_eq!(
            (after.local_modes, after.input_modes, after.output_modes),
            (self.before.local_modes, self.before.input_modes, self.before.output_modes)
        );
        self.seen
    }
}

fn the_screen_follows_keys_sizes_and_signals_and_gives_the_terminal_back(dev: &Dev) {
    let mut screen = Screen::open(dev, &[]);
    screen.wait_for("coordinator-1");
    assert!(screen.seen.contains("\u{1b}[38;5;2"), "healthy is green: {:?}", screen.seen);
    screen.seen.clear();
    tcsetwinsize(&screen.line, Winsize { ws_row: 40, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 })
        .expect("sized");
    let pid = Pid::from_child(&screen.child);
    kill_process(pid, Signal::WINCH).expect("a process of ours");
    screen.wait_for("ROLE");
    screen.press("\r");
    screen.wait_for("certificate");
    screen.press("q");
    screen.ends_well();

    let mut screen = Screen::open(dev, &[("NO_COLOR", "1")]);
    screen.wait_for("coordinator-1");
    screen.press("\u{3}");
    let seen = screen.ends_well();
    assert!(!seen.contains("\u{1b}[38;5;"), "{seen:?}");

    let mut screen = Screen::open(dev, &[]);
    screen.wait_for("coordinator-1");
    kill_process(Pid::from_child(&screen.child), Signal::TERM).expect("a process of ours");
    screen.ends_well();
}
