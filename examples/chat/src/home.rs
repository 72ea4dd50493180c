//! The portable folder: `HOME/<profile>/` holds a profile, the folders of its Tor, and the socket of its daemon.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::cli::Common;
use crate::failure::Failure;

/// The longest name of a profile, in characters.
const MAX_PROFILE_NAME: usize = 32;
/// What every profile's folder holds, by which profiles are found.
pub(crate) const PROFILE_KEY: &str = "profile.key";
/// Where a running daemon listens.
pub(crate) const SOCKET: &str = "daemon.sock";

/// The name of a profile, which is a folder's name too: 1 to 32 of a-z, 0-9, `_` and `-`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ProfileName(String);

impl ProfileName {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ProfileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ProfileName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
        // A leading dash would read as an option.
        if text.is_empty() || text.len() > MAX_PROFILE_NAME || text.starts_with('-') || !text.chars().all(fits) {
            return Err("a profile's name has 1 to 32 of the characters a-z, 0-9, _ and -, and no dash in front");
        }
        Ok(Self(text.to_owned()))
    }
}

/// The folder of all profiles: the one that was named, else `hcp-chat` where the user's programs keep data.
pub(crate) fn home(common: &Common) -> Result<PathBuf, Failure> {
    let chosen = match &common.home {
        Some(home) => Some(home.clone()),
        None => data_home().map(|data| data.join("hcp-chat")),
    };
    let home =
        chosen.ok_or_else(|| Failure::new("neither XDG_DATA_HOME nor HOME is set: name a folder with --home"))?;
    std::path::absolute(&home).map_err(|error| Failure::file("use the folder", &home, &error))
}

/// The folder of the chosen profile.
pub(crate) fn profile_folder(common: &Common) -> Result<PathBuf, Failure> {
    Ok(home(common)?.join(common.profile.as_str()))
}

/// The profiles in a home, by name.
pub(crate) fn profiles(home: &Path) -> Result<Vec<ProfileName>, Failure> {
    let entries = match std::fs::read_dir(home) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Failure::file("read the folder", home, &error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| Failure::file("read the folder", home, &error))?;
        let name = entry.file_name().to_str().and_then(|name| name.parse().ok());
        if let Some(name) = name.filter(|_| entry.path().join(PROFILE_KEY).is_file()) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

fn data_home() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    // The XDG specification: a relative path is to be ignored.
    let xdg = variable("XDG_DATA_HOME").filter(|path| path.is_absolute());
    xdg.or_else(|| variable("HOME").map(|home| home.join(".local/share")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_profiles_stay_inside_the_home() {
        for good in ["a", "default", "work_2-b", &"x".repeat(32)] {
            assert!(good.parse::<ProfileName>().is_ok(), "{good:?}");
        }
        for bad in ["", ".", "..", "a/b", "A", "ü", "a b", "-a", &"x".repeat(33)] {
            assert!(bad.parse::<ProfileName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn only_folders_with_a_profile_are_listed() {
        let home = tempfile::tempdir().unwrap();
        for (name, file) in [("b", PROFILE_KEY), ("a", PROFILE_KEY), ("c", "other"), ("NOT", PROFILE_KEY)] {
            std::fs::create_dir(home.path().join(name)).unwrap();
            std::fs::write(home.path().join(name).join(file), "").unwrap();
        }
        let names: Vec<_> = profiles(home.path()).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(names, ["a", "b"]);
        assert!(profiles(&home.path().join("missing")).unwrap().is_empty());
    }
}
