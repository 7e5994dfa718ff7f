//! Goes round: each round measures every case with every contestant, one server at a time.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result};

use super::figure::{Case, Figure, Sample, Scale, Store};
use super::profile::Sampler;
use super::site::{Kind, Programs, Setup, Site};
use super::table::Line;

/// How a figure is measured.
pub(crate) struct Plan<'a> {
    /// Who takes part.
    pub(crate) programs: &'a Programs,
    /// How large.
    pub(crate) scale: Scale,
    /// How often.
    pub(crate) rounds: usize,
    /// The run's folder.
    pub(crate) dir: &'a Path,
    /// Only cases whose name contains this.
    pub(crate) only: Option<&'a str>,
    /// Samples the servers.
    pub(crate) sampler: Option<Sampler<'a>>,
}

impl Plan<'_> {
    /// Measures all cases of a figure; gives the lines of the table.
    pub(crate) fn figure(&self, figure: &Figure) -> Result<Vec<Line>> {
        let cases: Vec<&dyn Case> = figure
            .cases
            .iter()
            .map(Box::as_ref)
            .filter(|case| !self.scale.short || case.in_short())
            .filter(|case| self.only.is_none_or(|text| case.name().contains(text)))
            .collect();
        let mut lines: Vec<Vec<Line>> = cases.iter().map(|case| Line::of(figure, *case)).collect();
        let mut filled = HashSet::new();
        for round in 1..=self.rounds {
            for (case, lines) in cases.iter().zip(&mut lines) {
                for kind in case.contestants() {
                    if !self.programs.has(*kind) {
                        continue;
                    }
                    let start = Instant::now();
                    let sample = self
                        .measure(figure, *case, *kind, &mut filled)
                        .with_context(|| {
                            format!("{} {}, {}", figure.id, case.name(), kind.name())
                        })?;
                    let shown: Vec<String> = case
                        .metrics()
                        .iter()
                        .zip(&sample.values)
                        .map(|(metric, value)| {
                            format!("{} {}", super::table::number(*value), metric.unit)
                        })
                        .collect();
                    eprintln!(
                        "{} {}/{} {:<28} {:<13} {:<24} {:5.1} s",
                        figure.id,
                        round,
                        self.rounds,
                        case.name(),
                        kind.name(),
                        shown.join(", "),
                        start.elapsed().as_secs_f32()
                    );
                    for line in lines.iter_mut() {
                        line.add(*kind, &sample);
                    }
                }
            }
        }
        // Kept folders may be large, and no other figure uses them.
        for entry in std::fs::read_dir(self.dir)? {
            let _ = std::fs::remove_dir_all(entry?.path());
        }
        Ok(lines.into_iter().flatten().collect())
    }

    fn measure(
        &self,
        figure: &Figure,
        case: &dyn Case,
        kind: Kind,
        filled: &mut HashSet<PathBuf>,
    ) -> Result<Sample> {
        let dir = match case.store() {
            Store::Fresh => self.dir.join(format!("{}-{}", figure.id, kind.name())),
            Store::Kept(name) => self.dir.join(format!("{name}-{}", kind.name())),
        };
        if matches!(case.store(), Store::Kept(_)) && filled.insert(dir.clone()) {
            let start = Instant::now();
            std::fs::create_dir_all(&dir)?;
            if !case.lay(kind, &dir.join("data")).context("filling")? {
                let site = Site::start(self.programs, kind, &dir, Setup::default())?;
                case.fill(&site, self.scale).context("filling")?;
            }
            let took = start.elapsed().as_secs_f32();
            if took > 1.0 {
                eprintln!("   filled {} in {took:.1} s", dir.display());
            }
        }
        let site = Site::start(self.programs, kind, &dir, case.setup())?;
        let sampling = self
            .sampler
            .map(|sampler| sampler.start(site.pid()))
            .transpose()?;
        let sample = case.run(site, self.scale)?;
        if let Some(mut sampling) = sampling {
            // It ends with the server, which has just ended.
            sampling.wait()?;
        }
        if case.store() == Store::Fresh {
            std::fs::remove_dir_all(&dir)?;
        }
        Ok(sample)
    }
}
