//! Error codes and the error body of the protocol (specification §1.11).

use serde::Serialize;

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal, $status:literal;)*) => {
        /// Every code that a response under `/v2/` may carry (ERR-2).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum ErrorCode {
            $($(#[$doc])* $variant,)*
        }

        impl ErrorCode {
            /// All of them, in the order of the specification.
            pub const ALL: &'static [ErrorCode] = &[$(ErrorCode::$variant,)*];

            /// The code as it is sent.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(ErrorCode::$variant => $text,)*
                }
            }

            /// The HTTP status that goes with the code unless the case demands another.
            pub const fn status(self) -> u16 {
                match self {
                    $(ErrorCode::$variant => $status,)*
                }
            }
        }
    };
}

codes! {
    /// The blob is not in this repository.
    BlobUnknown = "BLOB_UNKNOWN", 404;
    /// The upload cannot go on like this.
    BlobUploadInvalid = "BLOB_UPLOAD_INVALID", 400;
    /// No such upload session.
    BlobUploadUnknown = "BLOB_UPLOAD_UNKNOWN", 404;
    /// The digest is malformed, not computed here, or does not match the content.
    DigestInvalid = "DIGEST_INVALID", 400;
    /// A manifest refers to content that the repository lacks.
    ManifestBlobUnknown = "MANIFEST_BLOB_UNKNOWN", 400;
    /// The manifest breaks a rule.
    ManifestInvalid = "MANIFEST_INVALID", 400;
    /// No such manifest in this repository.
    ManifestUnknown = "MANIFEST_UNKNOWN", 404;
    /// The repository name breaks the grammar.
    NameInvalid = "NAME_INVALID", 400;
    /// No such repository.
    NameUnknown = "NAME_UNKNOWN", 404;
    /// A length that was announced is not the length that arrived.
    SizeInvalid = "SIZE_INVALID", 400;
    /// Credentials are missing or wrong.
    Unauthorized = "UNAUTHORIZED", 401;
    /// The caller lacks the right.
    Denied = "DENIED", 403;
    /// The operation is not offered here.
    Unsupported = "UNSUPPORTED", 405;
    /// The caller asks too often.
    TooManyRequests = "TOOMANYREQUESTS", 429;
    /// Something broke in the registry.
    Unknown = "UNKNOWN", 500;
    /// The registry cannot answer now.
    Unavailable = "UNAVAILABLE", 503;
    /// A chunk or range that does not fit.
    RangeInvalid = "RANGE_INVALID", 416;
    /// The tag breaks the grammar.
    TagInvalid = "TAG_INVALID", 400;
    /// A signature of a schema 1 manifest does not hold.
    ManifestUnverified = "MANIFEST_UNVERIFIED", 400;
    /// The page size is not a number that makes sense.
    PaginationNumberInvalid = "PAGINATION_NUMBER_INVALID", 400;
    /// No such extension.
    ExtensionUnknown = "EXTENSION_UNKNOWN", 404;
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for ErrorCode {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// One entry of the error body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ErrorEntry {
    /// What went wrong, for programs.
    pub code: ErrorCode,
    /// What went wrong and the way out, for people. Never a secret.
    pub message: String,
    /// More about the case. A plain string, since the published Go type declares it so (ERR-1).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl ErrorEntry {
    /// An entry without detail.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> ErrorEntry {
        ErrorEntry {
            code,
            message: message.into(),
            detail: None,
        }
    }
}

/// The JSON body `{"errors":[…]}` (ERR-1), to be sent as `application/json`.
pub fn body(entries: &[ErrorEntry]) -> Vec<u8> {
    #[derive(Serialize)]
    struct Body<'a> {
        errors: &'a [ErrorEntry],
    }
    serde_json::to_vec(&Body { errors: entries }).expect("strings serialise")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Spec: ERR-1.
    #[test]
    fn the_body_is_a_list_of_errors() {
        let entries = [
            ErrorEntry::new(ErrorCode::ManifestBlobUnknown, "say \"please\""),
            ErrorEntry {
                detail: Some("sha256:0".into()),
                ..ErrorEntry::new(ErrorCode::Denied, "no")
            },
        ];
        let expected = concat!(
            r#"{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","message":"say \"please\""},"#,
            r#"{"code":"DENIED","message":"no","detail":"sha256:0"}]}"#
        );
        assert_eq!(String::from_utf8(body(&entries)).unwrap(), expected);
        assert_eq!(body(&[]), br#"{"errors":[]}"#);
    }

    /// Spec: ERR-1, ERR-2.
    #[test]
    fn codes_and_statuses_are_those_of_the_table() {
        let table: Vec<_> = ErrorCode::ALL
            .iter()
            .map(|c| format!("{c} {}", c.status()))
            .collect();
        let expected = [
            "BLOB_UNKNOWN 404",
            "BLOB_UPLOAD_INVALID 400",
            "BLOB_UPLOAD_UNKNOWN 404",
            "DIGEST_INVALID 400",
            "MANIFEST_BLOB_UNKNOWN 400",
            "MANIFEST_INVALID 400",
            "MANIFEST_UNKNOWN 404",
            "NAME_INVALID 400",
            "NAME_UNKNOWN 404",
            "SIZE_INVALID 400",
            "UNAUTHORIZED 401",
            "DENIED 403",
            "UNSUPPORTED 405",
            "TOOMANYREQUESTS 429",
            "UNKNOWN 500",
            "UNAVAILABLE 503",
            "RANGE_INVALID 416",
            "TAG_INVALID 400",
            "MANIFEST_UNVERIFIED 400",
            "PAGINATION_NUMBER_INVALID 400",
            "EXTENSION_UNKNOWN 404",
        ];
        assert_eq!(table, expected);
        assert!(ErrorCode::ALL.iter().all(|c| {
            c.as_str()
                .bytes()
                .all(|b| b == b'_' || b.is_ascii_uppercase())
        }));
    }
}
