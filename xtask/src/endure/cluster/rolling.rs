//! A rolling upgrade and the way back: one replica after the other is replaced while clients push, and no request fails.
//!
//! The version before has to serve beside the new one, on the schema that the new one made, and once more alone. As
//! `docs/how-to/several-replicas.md` has it, nginx sends nothing more to a replica before that is told to end.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::{Args, Life, Tally, bed, kept};
use crate::endure::work::lock;

/// Clients work for so long before and after each replacement.
const PAUSE: Duration = Duration::from_secs(2);

/// Runs it for the time that was asked for, and at least once in either direction.
pub(super) fn run(binary: &Path, folder: &Path, args: &Args, tally: &mut Tally) -> Result<()> {
    if args.replicas < 2 {
        bail!("--rolling needs --replicas 2 or more: with one, clients have nobody to go to");
    }
    let before = match &args.previous {
        Some(previous) => std::path::absolute(previous)?,
        None => binary.to_owned(),
    };
    let place = folder.join("rolling");
    std::fs::create_dir(&place)?;
    let shown = place.clone();
    roll(binary, &before, &place, args, tally).with_context(|| kept(args, 0, &shown))?;
    Ok(std::fs::remove_dir_all(&place)?)
}

fn roll(binary: &Path, before: &Path, place: &Path, args: &Args, tally: &mut Tally) -> Result<()> {
    let mut life = Life::new(before, place, args, 0)?;
    let old = life.bed.schema().context("a schema")?;
    let begun = Instant::now();
    let mut replaced = 0;
    while tally.rounds == 0 || begun.elapsed().as_secs() < args.seconds {
        for (name, program) in [("upgrade", binary), ("downgrade", before)] {
            let since = lock(&life.world).history.now();
            let round = tally.rounds as u64;
            life.among_clients(round, |bed, _, _| {
                std::thread::sleep(PAUSE);
                for at in 0..bed.replicas.len() {
                    bed.front.leave_out(Some(at))?;
                    replace(&mut bed.replicas[at], program)?;
                    bed.front.leave_out(None)?;
                    replaced += 1;
                    std::thread::sleep(PAUSE);
                }
                Ok(())
            })
            .and_then(|()| life.look(since, tally))
            .with_context(|| format!("{name}, round {round}"))?;
            tally.rounds += 1;
        }
    }
    life.end(tally)?;
    let new = life.bed.schema().context("a schema")?;
    println!("rolling: {replaced} replicas replaced, schema {old} before and {new} afterwards");
    if args.previous.is_some() && old == new {
        bail!("both programs know the same schema, so this shows nothing of an upgrade");
    }
    Ok(())
}

/// Ends one in order and starts another program in its place.
fn replace(replica: &mut bed::Replica, program: &Path) -> Result<()> {
    replica.stop()?;
    replica.becomes(program);
    replica.start()?;
    replica.ready()
}
