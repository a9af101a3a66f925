//! Feeds what reads the bytes of other nodes with mutated inputs, for a given time.
//!
//! ```text
//! corpus/<target>/*  →  mutate (seeded)  →  targets::<target>(&[u8])  →  panic?  →  failures/<target>-<seed>-<round>
//! ```
//!
//! | file | what it holds |
//! |---|---|
//! | `targets` | one function for each thing that reads foreign bytes |
//! | `mutate` | how an input becomes another |
//! | `cluster` | an engine for an input to be fed to, and a keyring that believes everything |
//! | `seeds` | makes the corpus: what two engines say to each other |
//!
//! There is no feedback from coverage: it depends on seeds that reach deep, and on a keyring that does not stop at
//! signatures. A failure replays: with the seed it says, or as the file that it leaves behind.

mod cluster;
mod mutate;
mod seeds;
mod targets;

use rand::{SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use std::{
    fs, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};
use targets::{TARGETS, Target};

const USAGE: &str = "\
Usage: p2p-core-fuzz [--seconds N] [--seed N] [--target NAME] [--input FILE | --make-corpus]

  --seconds N    how long, shared by the targets (default 10)
  --seed N       of the mutations (default: the time)
  --target NAME  only this one: frame, message, packet, state, segment
  --input FILE   feed this file to --target, once
  --make-corpus  write the corpus anew";

/// Longest that one input may take; what takes longer is reported as a failure.
const SLOW: Duration = Duration::from_secs(2);

struct Options {
    seconds: u64,
    seed: u64,
    target: Option<String>,
    input: Option<PathBuf>,
    make_corpus: bool,
}

impl Options {
    fn read(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let mut options =
            Self { seconds: 10, seed: now.as_secs(), target: None, input: None, make_corpus: false };
        while let Some(flag) = arguments.next() {
            if flag == "--make-corpus" {
                options.make_corpus = true;
                continue;
            }
            let value = arguments.next().ok_or(format!("{flag}: a value is missing"))?;
            let number = || value.parse::<u64>().map_err(|error| format!("{flag} {value}: {error}"));
            match flag.as_str() {
                "--seconds" => options.seconds = number()?,
                "--seed" => options.seed = number()?,
                "--target" => options.target = Some(value),
                "--input" => options.input = Some(value.into()),
                _ => return Err(format!("unknown argument {flag}")),
            }
        }
        Ok(options)
    }

    fn targets(&self) -> Result<Vec<&'static Target>, String> {
        let chosen = |target: &&Target| self.target.as_ref().is_none_or(|name| target.name == name);
        let targets: Vec<&Target> = TARGETS.iter().filter(chosen).collect();
        if targets.is_empty() { Err(format!("no target {:?}", self.target)) } else { Ok(targets) }
    }
}

fn main() -> ExitCode {
    match Options::read(std::env::args().skip(1)).and_then(|options| run(&options)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}\n\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

/// Whether nothing failed.
fn run(options: &Options) -> Result<bool, String> {
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let corpus = home.join("corpus");
    if options.make_corpus {
        seeds::write(&corpus).map_err(|error| format!("{}: {error}", corpus.display()))?;
        return Ok(true);
    }
    let targets = options.targets()?;
    if let Some(input) = &options.input {
        let bytes = fs::read(input).map_err(|error| format!("{}: {error}", input.display()))?;
        targets.iter().for_each(|target| (target.run)(&bytes));
        return Ok(true);
    }
    println!("seed {}", options.seed);
    let share = Duration::from_secs(options.seconds) / u32::try_from(targets.len()).unwrap_or(u32::MAX);
    let mut good = true;
    for target in targets {
        let inputs = read_corpus(&corpus.join(target.name));
        let inputs = inputs.map_err(|error| format!("corpus of {}: {error}", target.name))?;
        good &= fuzz(target, &inputs, options.seed, share, &home.join("failures"))?;
    }
    Ok(good)
}

fn read_corpus(directory: &Path) -> io::Result<Vec<Vec<u8>>> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(directory)?.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<_>>()?;
    // The order of a directory is chance, and a seed must replay.
    files.sort();
    files.iter().map(fs::read).collect()
}

/// Feeds `target` for `time`; stops at the first failure.
fn fuzz(
    target: &Target,
    corpus: &[Vec<u8>],
    seed: u64,
    time: Duration,
    failures: &Path,
) -> Result<bool, String> {
    if corpus.is_empty() {
        return Err(format!("{} has no corpus", target.name));
    }
    let mut rng = StdRng::seed_from_u64(seed);
    let started = Instant::now();
    let mut round: u64 = 0;
    while started.elapsed() < time {
        // First what is there, as it is.
        let input = match usize::try_from(round).ok().and_then(|round| corpus.get(round)) {
            Some(input) => input.clone(),
            None => {
                let base = corpus.choose(&mut rng).cloned().unwrap_or_default();
                mutate::mutate(base, corpus, &mut rng)
            }
        };
        let begun = Instant::now();
        let survived = catch_unwind(AssertUnwindSafe(|| (target.run)(&input))).is_ok();
        if !survived || begun.elapsed() > SLOW {
            let file = failures.join(format!("{}-{seed}-{round}", target.name));
            let kept = fs::create_dir_all(failures).and_then(|()| fs::write(&file, &input));
            kept.map_err(|error| format!("{}: {error}", file.display()))?;
            println!(
                "{}: FAILED at input {round}, after {:?}; kept as {}",
                target.name,
                begun.elapsed(),
                file.display()
            );
            return Ok(false);
        }
        round += 1;
    }
    println!("{}: {round} inputs, none failed", target.name);
    Ok(true)
}
