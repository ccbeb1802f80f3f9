//! The records on disk: one SQLite file, one writer thread, many rows a transaction.
//!
//! Everything here can be fetched again, or is rebuilt from the files or the journal, so rows are written behind: nobody
//! waits. A transaction that fails is tried again, and dropped in the end; once one succeeds, everything is written
//! anew from memory.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use fail::fail_point;
use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, ffi, params};

use super::fact::Fact;
use super::records::{Origin, RepositoryId, TagRow};
use super::{Error, Shared};
use crate::oci::{Digest, Registry, Repository};

/// The newest schema this program knows; in `PRAGMA user_version`.
pub(super) const VERSION: i64 = 3;

/// Kept free above what the files take, so that they can grow between two looks.
pub(super) const HEADROOM: u64 = 8 << 20;

/// How often it is written down who was used last.
const RECENCY: Duration = Duration::from_secs(5);

/// Attempts to write a batch, and the time between two.
const TRIES: u32 = 5;
const AGAIN: Duration = Duration::from_secs(1);

/// Rows written in one transaction at the most.
const BATCH: usize = 512;

const SCHEMA: &str = "
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
    CREATE TABLE repository (id INTEGER PRIMARY KEY, registry TEXT NOT NULL, name TEXT NOT NULL, UNIQUE (registry, name)) STRICT;
    CREATE TABLE blob (digest TEXT PRIMARY KEY, size INTEGER NOT NULL, media_type TEXT, used INTEGER NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE link (digest TEXT NOT NULL, repository INTEGER NOT NULL, PRIMARY KEY (digest, repository)) STRICT, WITHOUT ROWID;
    CREATE TABLE slot (repository INTEGER NOT NULL, key TEXT NOT NULL, digest TEXT NOT NULL, origin TEXT NOT NULL, parent_digest TEXT,
                       sequence INTEGER NOT NULL, PRIMARY KEY (repository, key)) STRICT, WITHOUT ROWID;
    CREATE TABLE event (sequence INTEGER PRIMARY KEY, repository INTEGER NOT NULL, key TEXT NOT NULL, digest TEXT) STRICT;
";

/// What the second version has beside the first. The checksum is a CRC-32C of key and value.
const FACTS: &str = "
    CREATE TABLE fact (repository INTEGER NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, checksum INTEGER NOT NULL,
                       PRIMARY KEY (repository, key)) STRICT, WITHOUT ROWID;
";

/// Events kept for those who fell behind.
const EVENTS: u64 = 100_000;

/// One change of a record.
pub(super) enum Row {
    Repository {
        id: RepositoryId,
        repository: Repository,
    },
    Blob {
        digest: Digest,
        size: u64,
        media_type: Option<Arc<str>>,
    },
    Used(Vec<(Digest, u64)>),
    Gone(Digest),
    Link {
        repository: RepositoryId,
        digest: Digest,
    },
    Slot {
        repository: RepositoryId,
        key: Box<str>,
        row: TagRow,
    },
    /// All of a digest, in the place of what is on record.
    WholeBlob {
        digest: Digest,
        size: u64,
        media_type: Option<Arc<str>>,
        used: u64,
        repositories: Vec<RepositoryId>,
    },
    /// All of a repository, in the place of what is on record.
    WholeRepository {
        id: RepositoryId,
        repository: Repository,
        slots: Vec<(Box<str>, TagRow)>,
        facts: Vec<Fact>,
    },
    /// A fact holds.
    Fact {
        repository: RepositoryId,
        fact: Fact,
    },
    /// It holds no more.
    NoFact {
        repository: RepositoryId,
        key: String,
    },
    /// All changes up to this one are here, whole: it follows all rows of them.
    Changes(u64),
    /// The repository's upstream is not known to have it any more.
    NoLink {
        repository: RepositoryId,
        digest: Digest,
    },
    NoSlot {
        repository: RepositoryId,
        key: Box<str>,
        sequence: u64,
    },
    /// Answered when everything before it is on disk.
    Flush(SyncSender<()>),
}

/// The sending end of the writer.
pub(super) struct Index {
    rows: mpsc::Sender<Row>,
}

/// All that was on record when the store was opened.
#[derive(Default)]
pub(super) struct Contents {
    pub(super) instance: String,
    pub(super) repositories: Vec<(RepositoryId, Repository)>,
    pub(super) blobs: Vec<StoredBlob>,
    pub(super) links: Vec<(Digest, RepositoryId)>,
    pub(super) slots: Vec<(RepositoryId, String, TagRow)>,
    pub(super) facts: Vec<(RepositoryId, Fact)>,
    /// The last change of the journal that is known to be here.
    pub(super) changes: u64,
    pub(super) sequence: u64,
}

pub(super) struct StoredBlob {
    pub(super) digest: Digest,
    pub(super) size: u64,
    pub(super) media_type: Option<String>,
    pub(super) used: u64,
}

/// The opened file, before the writer has it.
pub(super) struct Opened {
    connection: Connection,
    path: PathBuf,
    /// It was opened on a disk that took nothing.
    read_only: bool,
}

/// Why a file is not used as the index.
pub(super) enum Unusable {
    /// It is to be left alone.
    Newer(Error),
    /// It is to be set aside.
    Damaged(rusqlite::Error),
    /// Nothing is known to be wrong with it: the disk refuses, or another program holds it.
    Refused(rusqlite::Error),
}

impl From<rusqlite::Error> for Unusable {
    fn from(error: rusqlite::Error) -> Self {
        if tells_of_content(&error) {
            Self::Damaged(error)
        } else {
            Self::Refused(error)
        }
    }
}

/// Whether the error comes from what the file holds, and would come again on any other disk.
fn tells_of_content(error: &rusqlite::Error) -> bool {
    let Some(failure) = error.sqlite_error() else {
        // A row is missing, or a column holds something else: the tables are not ours.
        return true;
    };
    match failure.code {
        ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => true,
        // "no such table" and the like.
        ErrorCode::Unknown => failure.extended_code & 0xff == ffi::SQLITE_ERROR,
        ErrorCode::SchemaChanged | ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch | ErrorCode::TooBig => true,
        ErrorCode::SystemIoFailure => failure.extended_code == ffi::SQLITE_IOERR_SHORT_READ,
        _ => false,
    }
}

/// Opens the file, makes the tables if it is new, and reads everything.
pub(super) fn open(path: &Path) -> Result<(Opened, Contents), Unusable> {
    let connection = open_writable(path)?;
    let contents = read(&connection)?;
    Ok((
        Opened {
            connection,
            path: path.to_owned(),
            read_only: false,
        },
        contents,
    ))
}

fn open_writable(path: &Path) -> Result<Connection, Unusable> {
    let mut connection = Connection::open(path)?;
    let version = refuse_newer(&connection, path)?;
    connection.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 256; PRAGMA journal_size_limit = 1048576;",
    )?;
    match version {
        0 => create(&mut connection)?,
        1 => upgrade(&mut connection, FACTS)?,
        2 => upgrade(&mut connection, "")?,
        _ => {}
    }
    Ok(connection)
}

/// The version of the schema.
fn refuse_newer(connection: &Connection, path: &Path) -> Result<i64, Unusable> {
    let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if found > VERSION {
        return Err(Unusable::Newer(Error::Newer {
            path: path.to_owned(),
            found,
            known: VERSION,
        }));
    }
    Ok(found)
}

/// Reads everything of a file that cannot be written to, without the rows that lie beside it where there is no other way.
pub(super) fn open_read_only(path: &Path) -> Result<(Opened, Contents), Unusable> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let attempt = |name: &Path| -> Result<_, Unusable> {
        let connection = Connection::open_with_flags(name, flags)?;
        refuse_newer(&connection, path)?;
        let contents = read(&connection)?;
        Ok((connection, contents))
    };
    let (connection, contents) = match attempt(path) {
        Err(Unusable::Refused(_)) => {
            // Nobody can write to it, so nothing has to be shared with who does.
            let mut name = std::ffi::OsString::from("file:");
            name.push(escaped(path));
            name.push("?immutable=1");
            attempt(Path::new(&name))?
        }
        other => other?,
    };
    let opened = Opened {
        connection,
        path: path.to_owned(),
        read_only: true,
    };
    Ok((opened, contents))
}

/// In the place of an index that says nothing, where none can be made.
pub(super) fn nothing(path: &Path) -> rusqlite::Result<(Opened, Contents)> {
    let mut connection = Connection::open_in_memory()?;
    create(&mut connection)?;
    let contents = read(&connection)?;
    let opened = Opened {
        connection,
        path: path.to_owned(),
        read_only: true,
    };
    Ok((opened, contents))
}

/// As a path stands in a URI.
fn escaped(path: &Path) -> std::ffi::OsString {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let mut text = Vec::new();
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'?' | b'#' | b'%' => text.extend(format!("%{byte:02x}").into_bytes()),
            _ => text.push(*byte),
        }
    }
    std::ffi::OsString::from_vec(text)
}

impl Opened {
    /// Hands the file to its writer, which begins once the store is whole.
    pub(super) fn writer(self) -> (Index, Writer) {
        let (rows, queue) = mpsc::channel();
        (
            Index { rows },
            Writer {
                connection: self.connection,
                path: self.path,
                read_only: self.read_only,
                wanting: false,
                queue,
            },
        )
    }
}

impl Index {
    /// Writes behind. After a failed start of the writer nothing is written.
    pub(super) fn write(&self, row: Row) {
        let _ = self.rows.send(row);
    }

    /// Waits until everything before is on disk.
    pub(super) fn flush(&self) {
        let (done, wait) = mpsc::sync_channel(1);
        self.write(Row::Flush(done));
        let _ = wait.recv_timeout(Duration::from_secs(30));
    }
}

/// The receiving end.
pub(super) struct Writer {
    connection: Connection,
    path: PathBuf,
    read_only: bool,
    /// What is on record lacks some of what is in memory.
    wanting: bool,
    queue: Receiver<Row>,
}

impl Writer {
    /// Runs until the store is dropped.
    pub(super) fn start(mut self, shared: Weak<Shared>) -> std::io::Result<()> {
        thread::Builder::new()
            .name("index".into())
            .spawn(move || self.run(&shared))
            .map(drop)
    }

    /// Bytes on disk, with room to grow.
    pub(super) fn allowance(&self) -> u64 {
        let side = |suffix: &str| {
            let mut name = self.path.clone().into_os_string();
            name.push(suffix);
            std::fs::metadata(PathBuf::from(name)).map_or(0, |metadata| super::layout::room(&metadata))
        };
        side("") + side("-wal") + side("-shm") + HEADROOM
    }

    fn run(&mut self, shared: &Weak<Shared>) {
        let mut recency = now();
        // Rows that were refused once too often: the next ones are not waited for as long.
        let mut given_up = false;
        loop {
            let mut batch = match self.queue.recv_timeout(RECENCY) {
                Ok(row) => vec![row],
                Err(RecvTimeoutError::Timeout) => Vec::new(),
                Err(RecvTimeoutError::Disconnected) => return,
            };
            batch.extend(self.queue.try_iter().take(BATCH - 1));
            let tries = if given_up || self.read_only { 1 } else { TRIES };
            given_up = !self.write_again(&batch, tries, shared);
            self.wanting |= given_up;
            if self.wanting && !given_up {
                self.wanting = !self.write_anew(shared);
                given_up = self.wanting;
            }
            for row in batch {
                if let Row::Flush(done) = row {
                    let _ = done.send(());
                }
            }
            let Some(shared) = shared.upgrade() else { return };
            shared.shorten_journal();
            self.allow(&shared);
            if now().duration_since(recency) >= RECENCY {
                recency = now();
                shared.write_recency();
            }
        }
    }

    /// The files may have grown: content makes way for them.
    fn allow(&self, shared: &Shared) {
        let allowance = self.allowance() + shared.journal.allowance() + super::kept::room(&shared.layout);
        let victims = shared.ledger.lock().allow(allowance);
        shared.unlink(victims);
    }

    /// Whether the rows are on disk at last. A disk that is full for a moment loses none.
    fn write_again(&mut self, batch: &[Row], tries: u32, shared: &Weak<Shared>) -> bool {
        for attempt in 1..=tries {
            let Err(error) = self.write(batch) else { return true };
            tracing::error!(%error, rows = batch.len(), attempt, "records could not be written; they are made good once the disk takes them, and content stays readable");
            match shared.upgrade() {
                Some(shared) => shared.metrics.index_errors.inc(),
                None => return false,
            }
            if attempt < tries {
                thread::sleep(AGAIN);
            }
        }
        false
    }

    /// Writes everything from memory, a batch at a time; whether the disk took it all.
    ///
    /// Rows that were sent meanwhile are written after it, in their order, and end at what is in memory too.
    fn write_anew(&mut self, shared: &Weak<Shared>) -> bool {
        let Some(shared) = shared.upgrade() else { return false };
        let (repositories, digests) = (shared.records.lock().all(), shared.ledger.lock().digests());
        let written = repositories.chunks(BATCH).all(|some| {
            let rows = shared.records.lock().whole(some);
            self.write_once(&rows, &shared)
        }) && digests.chunks(BATCH).all(|some| {
            let rows = shared.ledger.lock().whole(some);
            self.write_once(&rows, &shared)
        });
        if written {
            tracing::info!(
                repositories = repositories.len(),
                blobs = digests.len(),
                "the index takes rows again; all were written anew"
            );
        }
        written
    }

    fn write_once(&mut self, rows: &[Row], shared: &Shared) -> bool {
        let outcome = self.write(rows);
        self.allow(shared);
        outcome.inspect_err(|_| shared.metrics.index_errors.inc()).is_ok()
    }

    fn write(&mut self, batch: &[Row]) -> rusqlite::Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        fail_point!("store.index", |_| Err(disk_full()));
        self.be_writable()?;
        let transaction = self.connection.transaction()?;
        for row in batch {
            apply(&transaction, row)?;
        }
        let changes = batch.iter().filter_map(|row| match row {
            Row::Changes(number) => Some(*number),
            _ => None,
        });
        if let Some(number) = changes.max()
            && !self.wanting
        {
            transaction.execute(
                "INSERT OR REPLACE INTO meta VALUES ('changes', ?1)",
                [number.to_string()],
            )?;
        }
        transaction.commit()
    }
}

impl Writer {
    /// What was opened on a disk that took nothing is opened anew.
    fn be_writable(&mut self) -> rusqlite::Result<()> {
        if !self.read_only {
            return Ok(());
        }
        // Closed first: connections of one process share what was mapped for reading alone.
        self.connection = Connection::open_in_memory()?;
        let connection = open_writable(&self.path).map_err(|unusable| match unusable {
            Unusable::Damaged(error) | Unusable::Refused(error) => error,
            Unusable::Newer(_) => rusqlite::Error::InvalidQuery,
        })?;
        // What may not be written to is opened for reading, without a word.
        if connection.is_readonly("main")? {
            return Err(rusqlite::Error::SqliteFailure(
                ffi::Error::new(ffi::SQLITE_READONLY),
                None,
            ));
        }
        self.connection = connection;
        self.read_only = false;
        Ok(())
    }
}

#[cfg(feature = "failpoints")]
fn disk_full() -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_FULL), None)
}

fn create(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    transaction.execute_batch(SCHEMA)?;
    transaction.execute_batch(FACTS)?;
    let instance = format!("{:08x}", rand::random::<u32>());
    transaction.execute("INSERT INTO meta VALUES ('instance', ?1)", [instance])?;
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.commit()
}

fn upgrade(connection: &mut Connection, lacks: &str) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    transaction.execute_batch(lacks)?;
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.commit()
}

/// Runs one statement in the transaction.
trait Run: FnMut(&str, &[&dyn rusqlite::ToSql]) -> rusqlite::Result<()> {}

impl<F: FnMut(&str, &[&dyn rusqlite::ToSql]) -> rusqlite::Result<()>> Run for F {}

fn apply(transaction: &Transaction<'_>, row: &Row) -> rusqlite::Result<()> {
    let mut run =
        |sql: &str, params: &[&dyn rusqlite::ToSql]| transaction.prepare_cached(sql)?.execute(params).map(drop);
    match row {
        Row::Repository { id, repository } => name(&mut run, *id, repository),
        Row::Blob {
            digest,
            size,
            media_type,
        } => run(
            "INSERT INTO blob VALUES (?1, ?2, ?3, 0)
             ON CONFLICT DO UPDATE SET size = ?2, media_type = coalesce(?3, media_type)",
            params![digest.to_string(), signed(*size), media_type.as_deref()],
        ),
        Row::Used(used) => used.iter().try_for_each(|(digest, used)| {
            run(
                "UPDATE blob SET used = ?2 WHERE digest = ?1",
                params![digest.to_string(), signed(*used)],
            )
        }),
        Row::Gone(digest) => {
            let digest = digest.to_string();
            run("DELETE FROM blob WHERE digest = ?1", params![digest])?;
            run("DELETE FROM link WHERE digest = ?1", params![digest])
        }
        Row::Link { repository, digest } => run(
            "INSERT OR IGNORE INTO link VALUES (?1, ?2)",
            params![digest.to_string(), repository],
        ),
        Row::WholeBlob {
            digest,
            size,
            media_type,
            used,
            repositories,
        } => {
            let digest = digest.to_string();
            let known = params![digest, signed(*size), media_type.as_deref(), signed(*used)];
            run("INSERT OR REPLACE INTO blob VALUES (?1, ?2, ?3, ?4)", known)?;
            link_only(&mut run, &digest, repositories)
        }
        Row::WholeRepository {
            id,
            repository,
            slots,
            facts,
        } => {
            name(&mut run, *id, repository)?;
            run("DELETE FROM slot WHERE repository = ?1", params![id])?;
            run("DELETE FROM fact WHERE repository = ?1", params![id])?;
            facts.iter().try_for_each(|fact| say(&mut run, *id, fact))?;
            slots
                .iter()
                .try_for_each(|(key, row)| move_slot(&mut run, *id, key, row))
        }
        Row::Fact { repository, fact } => say(&mut run, *repository, fact),
        Row::NoFact { repository, key } => run(
            "DELETE FROM fact WHERE repository = ?1 AND key = ?2",
            params![repository, key],
        ),
        Row::NoLink { repository, digest } => run(
            "DELETE FROM link WHERE digest = ?1 AND repository = ?2",
            params![digest.to_string(), repository],
        ),
        Row::Slot { repository, key, row } => move_slot(&mut run, *repository, key, row),
        Row::NoSlot {
            repository,
            key,
            sequence,
        } => {
            run(
                "DELETE FROM slot WHERE repository = ?1 AND key = ?2",
                params![repository, key],
            )?;
            record(&mut run, *repository, key, None, *sequence)
        }
        Row::Changes(_) | Row::Flush(_) => Ok(()),
    }
}

fn name(run: &mut impl Run, id: RepositoryId, repository: &Repository) -> rusqlite::Result<()> {
    run(
        "INSERT OR REPLACE INTO repository VALUES (?1, ?2, ?3)",
        params![id, repository.registry.as_str(), repository.name.as_str()],
    )
}

/// Links a digest to these repositories and to no other.
fn link_only(run: &mut impl Run, digest: &str, repositories: &[RepositoryId]) -> rusqlite::Result<()> {
    run("DELETE FROM link WHERE digest = ?1", params![digest])?;
    repositories
        .iter()
        .try_for_each(|repository| run("INSERT INTO link VALUES (?1, ?2)", params![digest, repository]))
}

fn say(run: &mut impl Run, repository: RepositoryId, fact: &Fact) -> rusqlite::Result<()> {
    let (key, value) = (fact.key().text(), fact.json());
    let checksum = checksum(&key, &value);
    run(
        "INSERT OR REPLACE INTO fact VALUES (?1, ?2, ?3, ?4)",
        params![repository, key, value, checksum],
    )
}

/// SQLite tells no flipped bit in a row (measured: 40 of 60 were read as if nothing were wrong).
fn checksum(key: &str, value: &str) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(key.as_bytes()), value.as_bytes())
}

fn move_slot(run: &mut impl Run, repository: RepositoryId, key: &str, row: &TagRow) -> rusqlite::Result<()> {
    let digest = row.digest.to_string();
    let parent_digest = row.parent_digest.map(|digest| digest.to_string());
    run(
        "INSERT OR REPLACE INTO slot VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![
            repository,
            key,
            digest,
            origin_word(row.origin),
            parent_digest,
            signed(row.sequence)
        ],
    )?;
    record(run, repository, key, Some(&digest), row.sequence)
}

/// An event, in the transaction of what it tells of.
fn record(
    run: &mut impl Run,
    repository: RepositoryId,
    key: &str,
    digest: Option<&str>,
    sequence: u64,
) -> rusqlite::Result<()> {
    run(
        "INSERT OR REPLACE INTO event VALUES (?1, ?2, ?3, ?4)",
        params![signed(sequence), repository, key, digest],
    )?;
    run(
        "DELETE FROM event WHERE sequence <= ?1",
        params![signed(sequence.saturating_sub(EVENTS))],
    )
}

fn read(connection: &Connection) -> rusqlite::Result<Contents> {
    Ok(Contents {
        instance: connection.query_row("SELECT value FROM meta WHERE key = 'instance'", [], |row| row.get(0))?,
        repositories: rows(connection, "SELECT id, registry, name FROM repository", |row| {
            let (registry, name) = (row.get::<_, String>(1)?, row.get::<_, String>(2)?);
            // The parent's own registry has no name.
            let registry = if registry.is_empty() {
                Some(Registry::own())
            } else {
                registry.parse().ok()
            };
            let Some((registry, name)) = registry.zip(name.parse().ok()) else {
                return Ok(None);
            };
            Ok(Some((row.get(0)?, Repository { registry, name })))
        })?,
        blobs: rows(connection, "SELECT digest, size, media_type, used FROM blob", |row| {
            let Some(digest) = digest(row, 0)? else { return Ok(None) };
            let (size, used) = (
                row.get::<_, i64>(1)?.cast_unsigned(),
                row.get::<_, i64>(3)?.cast_unsigned(),
            );
            Ok(Some(StoredBlob {
                digest,
                size,
                media_type: row.get(2)?,
                used,
            }))
        })?,
        links: rows(connection, "SELECT digest, repository FROM link", |row| {
            Ok(digest(row, 0)?.zip(Some(row.get(1)?)))
        })?,
        slots: rows(
            connection,
            "SELECT repository, key, digest, origin, parent_digest, sequence FROM slot",
            |row| {
                let Some(pointed) = digest(row, 2)? else {
                    return Ok(None);
                };
                let row_of = TagRow {
                    digest: pointed,
                    origin: if row.get::<_, String>(3)? == origin_word(Origin::Pushed) {
                        Origin::Pushed
                    } else {
                        Origin::Parent
                    },
                    parent_digest: row.get::<_, Option<String>>(4)?.and_then(|text| text.parse().ok()),
                    sequence: row.get::<_, i64>(5)?.cast_unsigned(),
                    confirmed: None,
                };
                Ok(Some((row.get(0)?, row.get(1)?, row_of)))
            },
        )?,
        facts: facts(connection)?,
        changes: connection
            .query_row("SELECT value FROM meta WHERE key = 'changes'", [], |row| {
                row.get::<_, String>(0)
            })
            .ok()
            .and_then(|number| number.parse().ok())
            .unwrap_or(0),
        sequence: connection
            .query_row("SELECT coalesce(max(sequence), 0) FROM event", [], |row| {
                row.get::<_, i64>(0)
            })?
            .cast_unsigned(),
    })
}

/// What a file of the first version does not have, and one that is read on a disk that takes nothing does not get.
fn facts(connection: &Connection) -> rusqlite::Result<Vec<(RepositoryId, Fact)>> {
    if !connection.table_exists(None, "fact")? {
        return Ok(Vec::new());
    }
    rows(connection, "SELECT repository, key, value, checksum FROM fact", |row| {
        let (key, value): (String, String) = (row.get(1)?, row.get(2)?);
        let fact = (checksum(&key, &value) == row.get::<_, u32>(3)?).then(|| Fact::read(&value));
        if fact.is_none() {
            tracing::error!(
                key,
                "a row of the index is damaged; what it said is taken from the journal"
            );
        }
        Ok(row.get(0).ok().zip(fact.flatten()))
    })
}

/// Every row that makes sense; one that does not is passed over, as its content can be fetched again.
fn rows<T>(
    connection: &Connection,
    sql: &str,
    mut read: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<Option<T>>,
) -> rusqlite::Result<Vec<T>> {
    let mut statement = connection.prepare(sql)?;
    let mut found = Vec::new();
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        found.extend(read(row)?);
    }
    Ok(found)
}

fn digest(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Option<Digest>> {
    Ok(row.get::<_, String>(column)?.parse().ok())
}

fn origin_word(origin: Origin) -> &'static str {
    match origin {
        Origin::Parent => "parent",
        Origin::Pushed => "pushed",
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[expect(
    clippy::disallowed_methods,
    reason = "nothing is decided by it but when it is written"
)]
pub(super) fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_tells_of_the_content_is_damage() {
        let is_damage = |code| tells_of_content(&rusqlite::Error::SqliteFailure(ffi::Error::new(code), None));

        for code in [ffi::SQLITE_CORRUPT, ffi::SQLITE_NOTADB, ffi::SQLITE_ERROR] {
            assert!(is_damage(code), "{code}");
        }
        assert!(tells_of_content(&rusqlite::Error::QueryReturnedNoRows));
        for code in [
            ffi::SQLITE_BUSY,
            ffi::SQLITE_LOCKED,
            ffi::SQLITE_FULL,
            ffi::SQLITE_CANTOPEN,
            ffi::SQLITE_READONLY,
            ffi::SQLITE_PERM,
            ffi::SQLITE_NOMEM,
            ffi::SQLITE_PROTOCOL,
            ffi::SQLITE_IOERR_READ,
            ffi::SQLITE_IOERR_SHMSIZE,
        ] {
            assert!(!is_damage(code), "{code}");
        }
    }
}
