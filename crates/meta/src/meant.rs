//! Which state a change is meant for, so that nobody overwrites what somebody else changed meanwhile.

/// Which version of something a change is meant for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Meant {
    /// Whatever it is, and whether it is there.
    #[default]
    Any,
    /// Whatever it is, as long as it is there.
    There,
    /// One of these; 0 stands for one that is not there.
    OneOf(Vec<i64>),
}

impl Meant {
    /// Whether it is meant for this version; `None`: there is nothing.
    pub fn fits(&self, version: Option<i64>) -> bool {
        match self {
            Self::Any => true,
            Self::There => version.is_some(),
            Self::OneOf(versions) => versions.contains(&version.unwrap_or(0)),
        }
    }
}

impl From<Option<i64>> for Meant {
    fn from(version: Option<i64>) -> Self {
        version.map_or(Self::Any, |version| Self::OneOf(vec![version]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_no_version_but_nought() {
        for (meant, there, other, absent) in [
            (Meant::Any, true, true, true),
            (Meant::There, true, true, false),
            (Meant::OneOf(vec![3, 7]), true, false, false),
            (Meant::OneOf(vec![0]), false, false, true),
            (Meant::OneOf(Vec::new()), false, false, false),
        ] {
            let fits = [Some(7), Some(8), None].map(|version| meant.fits(version));
            assert_eq!(fits, [there, other, absent], "{meant:?}");
        }
        assert_eq!(Meant::from(None), Meant::Any);
        assert_eq!(Meant::from(Some(7)), Meant::OneOf(vec![7]));
    }
}
