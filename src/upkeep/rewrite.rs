//! Packs written again: what is kept of them goes into new ones.
//!
//! A segment that is kept whole is opened and sealed again as it is: what it holds was compared when it was
//! compressed, and its seal proves that it still is that. Of one that is kept in part the chunks are taken out. What
//! shares a segment afterwards shared one before, or is of the same large file: no secret comes to stand beside
//! another file's content that it did not stand beside already.
//!
//! A pack of which something cannot be read is named, and then nothing of the plan may be carried out: what is kept of
//! other packs may build on less than what stays in this one.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use rayon::prelude::*;

use super::forms::Form;
use super::mark::{Marked, NO_FILE};
use super::plan::Plan;
use super::survey::{Place, Survey};
use crate::error::{Error, Result};
use crate::id::{ChunkId, PackId, RecipeId, TreeId};
use crate::index::catalog::Catalog;
use crate::snapshot::meta::{Anew, Recent, Versioned};
use crate::snapshot::progress::Progress;
use crate::snapshot::recipe::Recipe;
use crate::snapshot::tree::Tree;
use crate::store::reader::Pack;
use crate::store::segment::{self, ChunkEntry, Content, SegmentEntry, TARGET};
use crate::store::sink::{Base, Delta, PackSink, Stored};

/// So many differences are made at a time.
const BATCH: usize = 2048;
/// Segments of so many large files are open at a time.
const OPEN: usize = 16;

/// A chunk that is stored in another form than before.
struct Job {
    pack: Arc<Pack>,
    segment: usize,
    chunk: ChunkEntry,
    nth: usize,
    file: u32,
    against: Option<(ChunkId, u8)>,
}

/// Chunks that are gathered for a segment.
#[derive(Default)]
struct Gathered {
    plain: Vec<u8>,
    chunks: Vec<ChunkEntry>,
}

struct Rewriting<'a> {
    catalog: &'a Catalog,
    survey: &'a Survey,
    marked: &'a Marked,
    plan: &'a Plan,
    sink: PackSink,
    jobs: Vec<Job>,
    /// By large file, in the order in which they were begun.
    files: Vec<(u32, Gathered)>,
    failed: BTreeMap<PackId, String>,
}

/// What came of it.
pub enum Rewritten {
    /// These packs hold all that is kept, and are durable.
    Stored(Vec<Stored>),
    /// Of these packs something could not be read, and why.
    Unreadable(BTreeMap<PackId, String>),
}

/// Writes what `plan` keeps of packs that are to be written again, into `sink`.
pub fn rewrite(
    catalog: &Catalog,
    survey: &Survey,
    marked: &Marked,
    plan: &Plan,
    sink: PackSink,
    progress: &dyn Progress,
) -> Result<Rewritten> {
    let (jobs, files, failed) = (Vec::new(), Vec::new(), BTreeMap::new());
    let mut rewriting = Rewriting { catalog, survey, marked, plan, sink, jobs, files, failed };
    rewriting.versions()?;
    let kept = kept_of(survey, plan);
    progress.begin("packing", plan.rewrite.iter().map(|number| survey.packs[*number].size).sum());
    for number in &plan.rewrite {
        let seen = &survey.packs[*number];
        if let Some(kept) = kept.get(number) {
            let done = catalog.packs().open(seen.id).and_then(|pack| rewriting.pack(&pack, kept));
            rewriting.note(seen.id, done)?;
        }
        progress.advance(seen.size);
    }
    rewriting.make()?;
    rewriting.close_files(0)?;
    progress.end();
    if !rewriting.failed.is_empty() {
        return Ok(Rewritten::Unreadable(rewriting.failed));
    }
    let records = plan.rewrite.iter().flat_map(|number| survey.packs[*number].records.clone()).collect::<Vec<_>>();
    if rewriting.sink.is_untouched() && records.is_empty() {
        return Ok(Rewritten::Stored(Vec::new()));
    }
    Ok(Rewritten::Stored(rewriting.sink.flush()?.commit_all(records)?))
}

/// The kept copies in each pack that is written again, in the order in which they lie.
fn kept_of(survey: &Survey, plan: &Plan) -> HashMap<usize, Vec<Place>> {
    let mut kept: HashMap<usize, Vec<Place>> = HashMap::new();
    for copy in (0..survey.len() as Place).filter(|copy| plan.kept[*copy as usize]) {
        let (pack, ..) = survey.at(copy);
        if plan.rewrite.contains(&pack) {
            kept.entry(pack).or_default().push(copy);
        }
    }
    for copies in kept.values_mut() {
        copies.sort_unstable_by_key(|copy| survey.order(*copy));
    }
    kept
}

impl Rewriting<'_> {
    /// Remembers a pack that could not be read; any other failure ends it all.
    fn note(&mut self, pack: PackId, done: Result<()>) -> Result<()> {
        match done {
            Err(error) if error.is_integrity() => {
                self.failed.insert(pack, error.to_string());
                Ok(())
            }
            other => other,
        }
    }

    /// Trees and recipes that are stored anew.
    fn versions(&mut self) -> Result<()> {
        let (mut trees, mut recipes) = (Recent::<Tree>::default(), Recent::<Recipe>::default());
        for versions in &self.plan.versions {
            let (mut tree, mut recipe) = (Anew::default(), Anew::default());
            for first in versions {
                let id = self.survey.id(*first);
                match self.survey.content(*first) {
                    Content::Tree => self.version(TreeId(id.0), &mut trees, &mut tree)?,
                    Content::Recipe => self.version(RecipeId(id.0), &mut recipes, &mut recipe)?,
                    Content::Data => {}
                }
            }
        }
        Ok(())
    }

    fn version<T: Versioned>(&mut self, id: T::Id, recent: &mut Recent<T>, anew: &mut Anew<T>) -> Result<()> {
        let version = recent.load(self.catalog, id)?;
        let bytes = anew.store(self.catalog.packs().keys(), version);
        self.sink.add(T::CONTENT, id.into(), &bytes)
    }

    fn pack(&mut self, pack: &Arc<Pack>, kept: &[Place]) -> Result<()> {
        let segment_of = |copy: &Place| self.survey.at(*copy).1;
        for copies in kept.chunk_by(|a, b| segment_of(a) == segment_of(b)) {
            let number = segment_of(&copies[0]);
            let entry = &pack.footer.segments[number];
            if entry.depth > 0 {
                self.difference(pack, number, entry, copies)?;
            } else if copies.len() == entry.chunks.len() {
                let (entry, coded) = self.catalog.packs().coded(pack, number)?;
                self.sink.add_coded(entry.clone(), coded)?;
            } else {
                self.part(pack, number, entry, copies)?;
            }
        }
        Ok(())
    }

    /// A segment that is stored as the difference from what it builds on.
    fn difference(&mut self, pack: &Arc<Pack>, number: usize, entry: &SegmentEntry, copies: &[Place]) -> Result<()> {
        let form = |copy: &Place| self.plan.forms.get(&self.survey.first(*copy)).copied().unwrap_or(Form::Whole);
        let forms: Vec<Form> = copies.iter().map(form).collect();
        let as_is = forms.iter().map(|form| match form {
            Form::AsIs(depth) => Some(*depth),
            _ => None,
        });
        let depth = as_is.collect::<Option<Vec<u8>>>().and_then(|depths| depths.into_iter().max());
        if let Some(depth) = depth.filter(|_| copies.len() == entry.chunks.len()) {
            let (entry, coded) = self.catalog.packs().coded(pack, number)?;
            return self.sink.add_coded(SegmentEntry { depth, ..entry.clone() }, coded);
        }
        for (copy, form) in copies.iter().zip(forms) {
            let nth = self.survey.at(*copy).2;
            let against = match form {
                Form::Against(base, depth) => Some((self.survey.id(base), depth)),
                Form::AsIs(_) | Form::Whole => None,
            };
            let file = self.marked.file[self.survey.first(*copy) as usize];
            self.jobs.push(Job { pack: pack.clone(), segment: number, chunk: entry.chunks[nth], nth, file, against });
        }
        if self.jobs.len() >= BATCH { self.make() } else { Ok(()) }
    }

    /// A segment of which only some chunks are kept.
    fn part(&mut self, pack: &Arc<Pack>, number: usize, entry: &SegmentEntry, copies: &[Place]) -> Result<()> {
        let plain = self.catalog.segment(pack, number)?;
        let mut rest = Gathered::default();
        for copy in copies {
            let nth = self.survey.at(*copy).2;
            let chunk = entry.chunks[nth];
            let bytes = entry.span(nth).and_then(|span| plain.get(span)).ok_or_else(|| lost(chunk.id))?;
            match (entry.content, self.marked.file[self.survey.first(*copy) as usize]) {
                (Content::Data, NO_FILE) => rest.add(chunk, bytes),
                (Content::Data, file) => self.add_to(file, chunk, bytes)?,
                (content, _) => self.sink.add(content, chunk.id, bytes)?,
            }
        }
        self.add_segment(rest)
    }

    /// Makes what is stored in another form, on all cores, what rests on one segment in a row.
    fn make(&mut self) -> Result<()> {
        let mut jobs = std::mem::take(&mut self.jobs);
        jobs.sort_by_cached_key(|job| self.catalog.root(&job.pack, job.segment as u32));
        let made: Vec<Result<(Vec<u8>, Option<Delta>)>> = jobs.par_iter().map(|job| self.made(job)).collect();
        for (job, made) in jobs.into_iter().zip(made) {
            match made {
                Ok((_, Some(delta))) => self.sink.add_delta(job.chunk.id, job.chunk.length, delta)?,
                Ok((plain, None)) if job.file == NO_FILE => {
                    let mut alone = Gathered::default();
                    alone.add(job.chunk, &plain);
                    self.add_segment(alone)?;
                }
                Ok((plain, None)) => self.add_to(job.file, job.chunk, &plain)?,
                Err(error) => self.note(job.pack.id, Err(error))?,
            }
        }
        Ok(())
    }

    fn made(&self, job: &Job) -> Result<(Vec<u8>, Option<Delta>)> {
        let whole = self.catalog.segment(&job.pack, job.segment)?;
        let span = job.pack.footer.segments[job.segment].span(job.nth);
        let plain = span.and_then(|span| whole.get(span)).ok_or_else(|| lost(job.chunk.id))?.to_vec();
        if self.catalog.packs().keys().chunk_id(&plain) != job.chunk.id {
            return Err(lost(job.chunk.id));
        }
        let Some((base, depth)) = job.against else { return Ok((plain, None)) };
        // If that one is damaged its own pack says so.
        let Ok(before) = self.catalog.chunk(Content::Data, base) else { return Ok((plain, None)) };
        let frame = segment::compress_delta(&plain, &before)?;
        Ok((plain, frame.map(|frame| Delta { base, depth, frame })))
    }

    /// Adds a chunk of the large file `file` to the segment that is open for it.
    fn add_to(&mut self, file: u32, chunk: ChunkEntry, bytes: &[u8]) -> Result<()> {
        let at = if let Some(at) = self.files.iter().position(|(known, _)| *known == file) {
            at
        } else {
            self.close_files(OPEN - 1)?;
            self.files.push((file, Gathered::default()));
            self.files.len() - 1
        };
        self.files[at].1.add(chunk, bytes);
        if self.files[at].1.plain.len() >= TARGET {
            let (_, full) = self.files.remove(at);
            self.add_segment(full)?;
        }
        Ok(())
    }

    /// Closes segments of large files until at most `most` are open, the oldest first.
    fn close_files(&mut self, most: usize) -> Result<()> {
        while self.files.len() > most {
            let (_, oldest) = self.files.remove(0);
            self.add_segment(oldest)?;
        }
        Ok(())
    }

    fn add_segment(&mut self, gathered: Gathered) -> Result<()> {
        if gathered.chunks.is_empty() {
            return Ok(());
        }
        self.sink.add_segment(Content::Data, gathered.chunks, gathered.plain, Base::default())
    }
}

impl Gathered {
    fn add(&mut self, chunk: ChunkEntry, bytes: &[u8]) {
        self.plain.extend_from_slice(bytes);
        self.chunks.push(chunk);
    }
}

fn lost(id: ChunkId) -> Error {
    Error::integrity(format!("chunk {id} is not what it should be"))
}
