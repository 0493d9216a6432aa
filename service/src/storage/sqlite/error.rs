//! What failures of SQLite mean for the store.

use rusqlite::{Error, ErrorCode, ffi};

use super::super::StorageError;

impl StorageError {
    /// Of a record of the row store: what cannot be read there costs rows, and all else can be used.
    pub(super) fn of_rows(self) -> Self {
        match self {
            Self::Damaged { what } => Self::RowsDamaged { what },
            other => other,
        }
    }
}

impl From<Error> for StorageError {
    /// Names what failed, never a value: SQLite's messages hold names of tables and columns only.
    fn from(error: Error) -> Self {
        match &error {
            Error::SqliteFailure(failure, _)
                if matches!(failure.code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) =>
            {
                Self::Damaged { what: "database file".to_owned() }
            }
            Error::InvalidColumnType(..)
            | Error::FromSqlConversionFailure(..)
            | Error::IntegralValueOutOfRange(..)
            | Error::Utf8Error(..) => Self::Damaged { what: "a column has a value of another type".to_owned() },
            Error::QueryReturnedNoRows => Self::Damaged { what: "a row that always exists is missing".to_owned() },
            Error::SqliteFailure(failure, _) => match failure.extended_code {
                ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC => Self::Unsynced,
                // The index of the log, which SQLite makes larger by itself, has no name of its own for a full disk.
                ffi::SQLITE_FULL | ffi::SQLITE_IOERR_SHMSIZE => Self::Full,
                _ => Self::Engine(error.to_string()),
            },
            _ => Self::Engine(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(code: i32) -> Error {
        Error::SqliteFailure(ffi::Error::new(code), None)
    }

    #[test]
    fn failures_have_the_codes_operators_look_up() {
        for (code, expected) in [
            (ffi::SQLITE_CORRUPT, "STORE-0104"),
            (ffi::SQLITE_NOTADB, "STORE-0104"),
            (ffi::SQLITE_FULL, "STORE-0107"),
            (ffi::SQLITE_IOERR_SHMSIZE, "STORE-0107"),
            (ffi::SQLITE_IOERR_FSYNC, "STORE-0108"),
            (ffi::SQLITE_IOERR_DIR_FSYNC, "STORE-0108"),
            (ffi::SQLITE_IOERR_WRITE, "STORE-0101"),
        ] {
            assert_eq!(StorageError::from(failure(code)).code(), expected);
        }
    }
}
