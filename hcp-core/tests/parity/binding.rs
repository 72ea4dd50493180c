//! What a binding offers, as far as names go, and what it has of the core.

use std::collections::{BTreeMap, BTreeSet};

use super::core_api::{ApiItem, Sort};

/// Names of a binding; all [folded](fold).
#[derive(Debug, Default)]
pub(crate) struct Binding {
    pub(crate) types: BTreeMap<String, BoundType>,
    pub(crate) functions: BTreeSet<String>,
    pub(crate) constants: BTreeSet<String>,
}

/// A class, record, enum, interface or error.
#[derive(Debug, Default)]
pub(crate) struct BoundType {
    /// Methods, constructors, fields, properties and variants.
    pub(crate) members: BTreeSet<String>,
    /// The fields of variants.
    pub(crate) variants: BTreeMap<String, BTreeSet<String>>,
    pub(crate) bases: BTreeSet<String>,
}

/// Makes names of all conventions equal: `RemovedByPeer`, `REMOVED_BY_PEER` and `removed_by_peer`.
pub(crate) fn fold(name: &str) -> String {
    name.chars().filter(|c| *c != '_').flat_map(char::to_lowercase).collect()
}

impl Binding {
    /// The type of that name, made when it is new: several places may add to one type.
    pub(crate) fn add_type(&mut self, name: &str) -> &mut BoundType {
        self.types.entry(fold(name)).or_default()
    }

    /// Whether the binding has an item of the core, by the names of its last parts.
    pub(crate) fn has(&self, item: &ApiItem) -> bool {
        if item.of_error {
            return self.maps_errors();
        }
        let names: Vec<String> = item.path.iter().map(|name| fold(name)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        match (item.sort, names.as_slice()) {
            (Sort::Type, [.., "errorkind"]) => self.maps_errors(),
            (Sort::Type, [.., name]) => self.types.contains_key(*name),
            (Sort::Function, [module, name]) | (Sort::Function, [.., module, name]) => {
                self.functions.contains(*name)
                    || self.functions.contains(&format!("{module}{name}"))
                    || self.has_member(module, name)
            }
            (Sort::Function, [name]) => self.functions.contains(*name),
            // UniFFI has no constants: a function stands for one.
            (Sort::Constant, [.., name]) => self.constants.contains(*name) || self.functions.contains(*name),
            (Sort::Member, [.., owner, name]) => self.has_member(owner, name),
            (Sort::MemberConstant, [.., owner, name]) => {
                let long = format!("{owner}{name}");
                let globals = [&self.constants, &self.functions];
                self.has_member(owner, name) || globals.iter().any(|global| global.contains(&long))
            }
            (Sort::Variant, [.., "errorkind", variant]) => self.has_error_kind(variant),
            (Sort::Variant, [.., owner, variant]) => {
                self.has_member(owner, variant) || self.is_subclass(variant, owner)
            }
            (Sort::VariantField, [.., owner, variant, field]) => {
                let inside = self.types.get(*owner).and_then(|owner| owner.variants.get(*variant));
                inside.is_some_and(|fields| fields.contains(*field))
                    || (self.is_subclass(variant, owner) && self.has_member(variant, field))
            }
            _ => false,
        }
    }

    fn has_member(&self, owner: &str, name: &str) -> bool {
        self.with_bases(owner)
            .iter()
            .any(|owner| self.types.get(owner).is_some_and(|owner| owner.members.contains(name)))
    }

    fn is_subclass(&self, name: &str, base: &str) -> bool {
        name != base && self.types.contains_key(name) && self.with_bases(name).contains(base)
    }

    /// A type and what it inherits from.
    fn with_bases(&self, name: &str) -> BTreeSet<String> {
        let mut all = BTreeSet::new();
        let mut open = vec![name.to_owned()];
        while let Some(next) = open.pop() {
            if all.insert(next.clone()) {
                open.extend(self.types.get(&next).into_iter().flat_map(|found| found.bases.iter().cloned()));
            }
        }
        all
    }

    /// Whether a kind of error comes through wherever the binding tells kinds apart.
    fn has_error_kind(&self, kind: &str) -> bool {
        let is_exception = || ["", "error"].iter().any(|end| self.is_subclass(&format!("{kind}{end}"), ERROR));
        self.maps_errors()
            && (!self.types.contains_key(ERROR_KIND) || self.has_member(ERROR_KIND, kind))
            && (!self.has_error_cases() || self.is_error_variant(kind) || is_exception())
    }

    /// Whether errors come through with their kinds; that no kind is missing is seen by the kinds themselves.
    fn maps_errors(&self) -> bool {
        self.types.contains_key(ERROR_KIND) || self.has_error_cases()
    }

    /// Whether the error type has variants or exceptions of its own.
    fn has_error_cases(&self) -> bool {
        self.types.get(ERROR).is_some_and(|error| !error.variants.is_empty())
            || self.types.keys().any(|other| self.is_subclass(other, ERROR))
    }

    fn is_error_variant(&self, kind: &str) -> bool {
        self.types.get(ERROR).is_some_and(|error| error.variants.contains_key(kind))
    }
}

/// The enum of kinds, in the core and in a binding that has one, folded.
const ERROR_KIND: &str = "errorkind";
/// The error of a binding, with a variant or a subclass for each kind, folded.
const ERROR: &str = "hcperror";
