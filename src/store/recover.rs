//! Opening a folder, whatever lies in it.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::check::digest_of;
use super::fact::{Fact, Key};
use super::health::Health;
use super::hot::Hot;
use super::index::{self, Contents, Row, StoredBlob, Unusable, now};
use super::journal::Journal;
use super::layout::{self, Layout};
use super::ledger::{Entry, Ledger, Trust};
use super::records::Records;
use super::space::Space;
use super::{Config, Error, Metrics, Shared, Slot, journal, kept, room, sync, upload};
use crate::oci::{Digest, Reference, Repository};

/// How often a start that takes long says that it goes on.
const PROGRESS: Duration = Duration::from_secs(3);

/// Opens the folder; see `Store::open`.
pub(super) fn open(config: &Config, metrics: Metrics) -> Result<Arc<Shared>, Error> {
    let begun = now();
    let layout = Layout::open(&config.path)?;
    let (journal, found) = journal::open(&layout)?;
    let (opened, mut contents) = open_index(&layout)?;
    let (index, writer) = opened.writer();
    let (syncer, worker) = sync::channel();

    let mut ledger = Ledger::new(config.capacity.bytes());
    // Nothing is entered yet, so nothing can be named; `fit` evicts.
    let _ = ledger.allow(writer.allowance() + journal.allowance().max(journal::room(&layout)) + kept::room(&layout));
    let amiss = adopt_blobs(&layout, &mut ledger, &mut contents);
    adopt_links(&mut ledger, &contents);
    for folder in [layout.partials(), layout.quarantine()] {
        layout
            .scraps(&folder)
            .into_iter()
            .for_each(|(path, metadata)| ledger.keep_scrap(path, layout::room(&metadata)));
    }
    upload::adopt_left(&layout, &mut ledger);
    let mut records = adopt_names(&contents);
    let facts = settle_facts(&mut contents, found, &journal);
    adopt_facts(&facts, &mut records, &mut ledger, &index);
    if let Some(number) = facts.index_lacks {
        let all = records.all();
        all.chunks(100)
            .flat_map(|some| records.whole(some))
            .for_each(|row| index.write(row));
        index.write(Row::Changes(number));
    }
    amiss.into_iter().for_each(|row| index.write(row));

    let shared = Arc::new(Shared {
        layout,
        ledger: Mutex::new(ledger),
        left: Condvar::new(),
        records: Mutex::new(records),
        index,
        journal,
        placing: Mutex::new(()),
        keeping: Mutex::new(()),
        hot: Hot::new(),
        syncer,
        health: Health::new(),
        space: Space::below(&config.path, config.keep_free),
        metrics,
        instance: contents.instance,
    });
    let thread = Error::io("starting a thread for", &config.path);
    writer
        .start(Arc::downgrade(&shared))
        .and_then(|()| worker.start(Arc::downgrade(&shared)))
        .and_then(|()| room::watch(Arc::downgrade(&shared)))
        .map_err(thread)?;
    shared.fit();
    if facts.is_written_anew {
        // Until it has all that is on record nothing is added to it: a later start would believe what it says.
        shared.journal.distrust();
        shared.write_journal_anew();
    }
    {
        let ledger = shared.ledger.lock();
        tracing::info!(
            items = ledger.len(),
            bytes = ledger.committed(),
            capacity = ledger.capacity(),
            took_ms = begun.elapsed().as_millis(),
            "the store is open"
        );
    }
    Ok(shared)
}

impl Shared {
    /// Evicts what is over the budget: it may have been larger when this was last open.
    fn fit(&self) {
        match self.make_room(1, &AtomicU64::new(0)) {
            Ok(()) => self.ledger.lock().release(1),
            Err(error) => tracing::warn!(%error, "nothing more can be kept for now"),
        }
    }
}

fn open_index(layout: &Layout) -> Result<(index::Opened, Contents), Error> {
    let path = layout.index();
    if layout.takes_nothing() {
        return match index::open_read_only(&path) {
            Err(Unusable::Newer(error)) => Err(error),
            Err(Unusable::Refused(error) | Unusable::Damaged(error)) => {
                tracing::error!(%error, path = %path.display(), "the index cannot be read, nor made anew on a disk that takes nothing; content lies here, and nobody knows whose it is");
                index::nothing(&path).map_err(|error| refused(&path, &error))
            }
            Ok(opened) => Ok(opened),
        };
    }
    let files = ["", "-wal", "-shm"].map(|suffix| beside(&path, suffix));
    for file in &files {
        if file.symlink_metadata().is_ok_and(|metadata| !metadata.is_file()) {
            layout.set_aside(file)?;
        }
        layout::make_ours(file);
    }
    match index::open(&path) {
        Ok(opened) => return Ok(opened),
        Err(Unusable::Newer(error)) => return Err(error),
        Err(Unusable::Refused(error)) => return Err(refused(&path, &error)),
        Err(Unusable::Damaged(error)) => {
            tracing::error!(%error, path = %path.display(), "the index is damaged; it is set aside and rebuilt from the files");
        }
    }
    for file in &files {
        if file.symlink_metadata().is_ok() {
            layout.set_aside(file)?;
        }
    }
    index::open(&path).map_err(|unusable| match unusable {
        Unusable::Newer(error) => error,
        Unusable::Refused(error) | Unusable::Damaged(error) => refused(&path, &error),
    })
}

/// A record file, or one that SQLite keeps beside it.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// All tags are in the file: better no start than one without them.
fn refused(path: &Path, error: &rusqlite::Error) -> Error {
    let remedy = "nothing was changed; mend the disk or stop whoever holds the file, then start again \
                  (if the file is lost, move it away: content is found without it, tags are not)";
    Error::io("opening", path)(io::Error::other(format!("{error}: {remedy}")))
}

/// Enters every file in the ledger, coldest first; what has to be put right in the index.
fn adopt_blobs(layout: &Layout, ledger: &mut Ledger, contents: &mut Contents) -> Vec<Row> {
    let mut recorded: HashMap<Digest, StoredBlob> = contents.blobs.drain(..).map(|blob| (blob.digest, blob)).collect();
    let mut amiss = Vec::new();
    let mut found = Vec::new();
    let last = Cell::new(now());
    let progress = |files: usize| {
        if now().duration_since(last.get()) >= PROGRESS {
            last.set(now());
            tracing::info!(files, "still looking at what the store holds");
        }
    };
    for (digest, metadata) in layout.committed(progress) {
        let record = recorded.remove(&digest);
        let had = record.as_ref().map(|record| record.size);
        // A power cut may keep a name and not its bytes. The record may be wrong as well: the bytes decide.
        let is_odd = had.is_some_and(|had| had != metadata.len()) || metadata.len() == 0;
        if is_odd && is_damaged(layout, &digest) && layout.isolate(&digest).is_ok() {
            tracing::warn!(%digest, has = metadata.len(), had, "stored content is damaged; it goes to quarantine");
            amiss.push(Row::Gone(digest));
            continue;
        }
        if record.as_ref().is_none_or(|record| record.size != metadata.len()) {
            amiss.push(Row::Blob {
                digest,
                size: metadata.len(),
                media_type: None,
            });
        }
        found.push((digest, entry(&metadata, record)));
    }
    found.sort_by_key(|(_, entry)| entry.used);
    found
        .into_iter()
        .for_each(|(digest, entry)| ledger.adopt(digest, entry));
    amiss.extend(recorded.into_keys().map(Row::Gone));
    amiss
}

/// Whether the file has other bytes than its name says; one that cannot be read now is left to who wants it.
fn is_damaged(layout: &Layout, digest: &Digest) -> bool {
    let opened = layout::open_blob(&layout.blob(digest));
    let actual =
        opened.and_then(|file| digest_of(digest.algorithm(), |buffer, position| file.read_at(buffer, position)));
    actual.is_ok_and(|actual| actual != *digest)
}

/// Hashed before it is trusted: nobody knows what happened to the bytes while no wharf was running.
fn entry(metadata: &Metadata, recorded: Option<StoredBlob>) -> Entry {
    let (used, media_type) = recorded.map_or((0, None), |blob| (blob.used, blob.media_type));
    let (room, media_type) = (layout::room(metadata), media_type.map(Arc::from));
    let mut entry = Entry::new(metadata.len(), room, Trust::Unverified, media_type);
    entry.used = used;
    entry
}

/// A link of a repository that is not on record is nobody's: its number may be given anew.
fn adopt_links(ledger: &mut Ledger, contents: &Contents) {
    let known: HashSet<u32> = contents.repositories.iter().map(|(id, _)| *id).collect();
    for (digest, repository) in contents.links.iter().filter(|(_, id)| known.contains(id)) {
        ledger.link(digest, *repository);
    }
}

fn adopt_names(contents: &Contents) -> Records {
    let highest = contents
        .links
        .iter()
        .map(|(_, id)| *id)
        .chain(contents.slots.iter().map(|(id, ..)| *id))
        .max();
    let mut records = Records::new(contents.sequence, highest.unwrap_or(0));
    let mut names: HashMap<u32, &Repository> = HashMap::new();
    for (id, repository) in &contents.repositories {
        records.adopt_repository(*id, repository.clone());
        names.insert(*id, repository);
    }
    for (id, key, row) in &contents.slots {
        if let Some(repository) = names.get(id) {
            records.adopt_slot(repository, key, row.clone());
        }
    }
    records
}

/// What a start takes for true of what exists nowhere else.
struct Facts {
    hold: Vec<(Repository, Vec<Fact>)>,
    /// Names that were deleted, which the index may have all the same.
    gone: Vec<(Repository, Reference)>,
    /// The journal does not say all of it.
    is_written_anew: bool,
    /// The index does not, up to this change.
    index_lacks: Option<u64>,
}

/// The journal is right, unless it lacks something that the index has.
fn settle_facts(contents: &mut Contents, found: journal::Found, journal: &Journal) -> Facts {
    let is_older = found.is_older;
    let last = found.changes.last().map_or(0, |change| change.number);
    let lacks = found.is_damaged || last < contents.changes;
    journal.count_from(contents.changes);
    let mut hold: BTreeMap<Repository, BTreeMap<Key, Fact>> = BTreeMap::new();
    if lacks {
        let names: HashMap<u32, &Repository> = contents.repositories.iter().map(|(id, name)| (*id, name)).collect();
        for (id, fact) in contents.facts.drain(..) {
            if let Some(repository) = names.get(&id) {
                hold.entry((*repository).clone()).or_default().insert(fact.key(), fact);
            }
        }
        tracing::error!(
            journal = last,
            index = contents.changes,
            "the journal lacks changes that the index has; both are used, and it is written anew"
        );
    }
    let known = if lacks { contents.changes } else { 0 };
    let mut gone = Vec::new();
    for change in found.changes {
        let Some(repository) = change.repository().filter(|_| change.number > known || known == 0) else {
            continue;
        };
        if change.number > contents.changes {
            let names = change.unsay.iter().filter_map(Key::name);
            gone.extend(names.map(|name| (repository.clone(), name)));
        }
        let facts = hold.entry(repository).or_default();
        for key in &change.unsay {
            facts.remove(key);
        }
        facts.extend(change.say.into_iter().map(|fact| (fact.key(), fact)));
    }
    let hidden = hold.iter().flat_map(|(repository, facts)| {
        let names = facts.values().filter_map(|fact| match fact {
            Fact::Buried { name, .. } => Some(name.clone()),
            _ => None,
        });
        names.map(|name| (repository.clone(), name))
    });
    gone.extend(hidden);
    let hold = hold
        .into_iter()
        .map(|(repository, facts)| (repository, facts.into_values().collect()));
    let last = last.max(contents.changes);
    Facts {
        hold: hold.collect(),
        gone,
        is_written_anew: lacks || is_older,
        index_lacks: (lacks || last != contents.changes).then_some(last),
    }
}

/// Enters what was pushed and deleted here; what the index says otherwise is put right.
fn adopt_facts(facts: &Facts, records: &mut Records, ledger: &mut Ledger, index: &index::Index) {
    let mut lost = 0;
    for (repository, facts) in &facts.hold {
        let id = records.enrol(repository, index);
        for fact in facts {
            if let Some(digest) = fact.content() {
                ledger.own(digest);
                if !ledger.holds(digest) {
                    lost += 1;
                    tracing::error!(%repository, %digest, "content that was pushed here is gone");
                }
                ledger.link(digest, id);
            }
            if let Some((digest, media_type)) = fact.content().zip(fact.media_type()) {
                ledger.set_media_type(digest, media_type);
            }
            records.adopt_fact(repository, fact.clone());
        }
    }
    records.forget_unsaid_tags();
    for (repository, name) in &facts.gone {
        let said = |key| records.fact(repository, &key).is_some();
        match name {
            Reference::Tag(tag) if !said(Key::Tag(tag.clone())) => {
                records.untag(repository, &Slot::Tag(tag.clone()), index);
            }
            Reference::Digest(digest) if !said(Key::Blob(*digest)) && !said(Key::Manifest(*digest)) => {
                let Some(id) = records.repository_id(repository) else {
                    continue;
                };
                ledger.unlink(digest, id);
                index.write(Row::NoLink {
                    repository: id,
                    digest: *digest,
                });
            }
            _ => {}
        }
    }
    if lost > 0 {
        tracing::error!(
            items = lost,
            "the disk lost content that exists nowhere else; push it again"
        );
    }
}
