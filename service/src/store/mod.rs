//! Where users are kept. The set of stores is closed, so it is an enum; what each must do is
//! written once, in `suite.rs`, and run against every one.

mod embedded;
pub mod mysql;
#[cfg(test)]
pub(crate) mod suite;

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};

use thiserror::Error;

use embedded::Embedded;
use mysql::{Mysql, MysqlConfig};

use crate::telemetry::metrics::{Metrics, Operations};
use crate::user::{Email, NewUser, User, UserId, UserPatch};

/// Why an operation did not do what it was asked.
#[derive(Debug, Error)]
pub enum StoreError {
    /// No user has this id.
    #[error("no such user")]
    NotFound,
    /// Another user's address compares equal, see [`Email::key`].
    #[error("duplicate e-mail address")]
    DuplicateEmail,
    /// The store failed; the same request may succeed later.
    #[error("{reason}")]
    Unavailable {
        /// For the client: what does not work.
        reason: Cow<'static, str>,
        /// For `/readyz`, and whoever runs the service: what exactly, and what to do.
        advice: Option<String>,
        /// For the log: why.
        #[source]
        cause: Box<dyn Error + Send + Sync>,
    },
}

/// Which store to use.
#[derive(Debug, Clone)]
pub enum StoreConfig {
    /// A file in this folder.
    Embedded(PathBuf),
    /// A database server.
    Mysql(MysqlConfig),
}

impl StoreConfig {
    /// How many descriptors the store may hold at once beyond those that it holds once it is open.
    pub fn descriptors(&self) -> usize {
        match self {
            // The file, when it is opened anew.
            Self::Embedded(_) => 2,
            // A name is resolved before it is connected to, and with one file open at a time.
            Self::Mysql(config) => config.connections + 1,
        }
    }
}

impl fmt::Display for StoreConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded(folder) => write!(f, "embedded in {}", folder.display()),
            Self::Mysql(config) => write!(f, "{config}"),
        }
    }
}

/// Why a store could not be opened, for the person who starts the service.
#[derive(Debug, Error)]
#[error(transparent)]
pub enum OpenError {
    /// The file or its folder.
    Embedded(#[from] embedded::OpenError),
    /// The database's schema. One that is away for now is no error.
    Mysql(#[from] mysql::TooNew),
}

/// Which users, in the order of their ids, and how many of them.
#[derive(Debug, Clone, Default)]
pub struct PageQuery {
    /// Only users after this one.
    pub after: Option<UserId>,
    /// At most so many.
    pub limit: usize,
    /// Only users whose `active` is this.
    pub active: Option<bool>,
    /// Only the user whose address compares equal to this.
    pub email: Option<Email>,
}

/// A part of a list of users.
#[derive(Debug, Default)]
pub struct Page {
    /// In the order of their ids.
    pub users: Vec<User>,
    /// Whether there are users after the last of these.
    pub more: bool,
}

/// How a store's connections are used.
#[derive(Debug, Clone, Copy)]
pub struct PoolUsage {
    /// Those that an operation has, or makes.
    pub used: usize,
    /// Those that wait for an operation.
    pub idle: usize,
    /// Operations that wait for a connection.
    pub waiting: usize,
    /// Operations so far that got none because the wait was too long, or would have been.
    pub timeouts: u64,
}

/// The store in use.
#[derive(Debug)]
pub struct Store {
    kind: Kind,
    operations: Operations,
}

#[derive(Debug)]
enum Kind {
    /// A file in the service's own folder.
    Embedded(Embedded),
    /// A database server.
    Mysql(Box<Mysql>),
}

impl Store {
    /// Opens the store that is configured.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(config: &StoreConfig, metrics: &Metrics) -> Result<Self, OpenError> {
        match config {
            StoreConfig::Embedded(folder) => Self::open_embedded(folder, metrics),
            StoreConfig::Mysql(config) => {
                let kind = Kind::Mysql(Box::new(Mysql::open(config).await?));
                Ok(Self { kind, operations: metrics.operations("mysql") })
            }
        }
    }

    /// Opens the store in a folder, which is made if it is missing.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open_embedded(folder: &Path, metrics: &Metrics) -> Result<Self, OpenError> {
        Ok(Self { kind: Kind::Embedded(Embedded::open(folder)?), operations: metrics.operations("redb") })
    }

    /// Whether only one process may use the store at a time.
    pub fn has_single_writer(&self) -> bool {
        match self.kind {
            Kind::Embedded(_) => true,
            Kind::Mysql(_) => false,
        }
    }

    /// How its connections are used, if it has any.
    pub fn pool(&self) -> Option<PoolUsage> {
        match &self.kind {
            Kind::Embedded(_) => None,
            Kind::Mysql(store) => Some(store.pool()),
        }
    }

    /// Adds a user under a new id.
    ///
    /// # Errors
    /// `DuplicateEmail`, `Unavailable`.
    pub async fn create(&self, user: NewUser) -> Result<User, StoreError> {
        let work = async {
            match &self.kind {
                Kind::Embedded(store) => store.create(user),
                Kind::Mysql(store) => store.create(user).await,
            }
        };
        self.operations.create.time(work).await
    }

    /// The user with this id.
    ///
    /// # Errors
    /// `NotFound`, `Unavailable`.
    pub async fn get(&self, id: UserId) -> Result<User, StoreError> {
        let work = async {
            match &self.kind {
                Kind::Embedded(store) => store.get(id),
                Kind::Mysql(store) => store.get(id).await,
            }
        };
        self.operations.get.time(work).await
    }

    /// Changes a user and returns it as it is afterwards; a change that changes nothing keeps
    /// `updated_at`.
    ///
    /// # Errors
    /// `NotFound`, `DuplicateEmail`, `Unavailable`.
    pub async fn update(&self, id: UserId, patch: UserPatch) -> Result<User, StoreError> {
        let work = async {
            match &self.kind {
                Kind::Embedded(store) => store.update(id, patch),
                Kind::Mysql(store) => store.update(id, patch).await,
            }
        };
        self.operations.update.time(work).await
    }

    /// Removes a user; the id is never given again.
    ///
    /// # Errors
    /// `NotFound`, `Unavailable`.
    pub async fn delete(&self, id: UserId) -> Result<(), StoreError> {
        let work = async {
            match &self.kind {
                Kind::Embedded(store) => store.delete(id),
                Kind::Mysql(store) => store.delete(id).await,
            }
        };
        self.operations.delete.time(work).await
    }

    /// A page of users. Its cost depends on `limit`, not on how many users there are.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn page(&self, query: &PageQuery) -> Result<Page, StoreError> {
        let work = async {
            match &self.kind {
                Kind::Embedded(store) => store.page(query),
                Kind::Mysql(store) => store.page(query).await,
            }
        };
        self.operations.page.time(work).await
    }

    /// Whether the store can serve requests now.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn check(&self) -> Result<(), StoreError> {
        let work = async {
            match &self.kind {
                Kind::Embedded(store) => store.check(),
                Kind::Mysql(store) => store.check().await,
            }
        };
        self.operations.check.time(work).await
    }
}
