//! Rust source as a tree of modules, with names resolved the way `use` does it, as far as this workspace needs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use syn::ext::IdentExt;
use syn::{Attribute, Item, UseTree, Visibility};

/// Files by their path below the folder of `lib.rs`.
pub(crate) type Files = BTreeMap<String, String>;

/// A path of names: of a module from the crate's root, or of an item.
pub(crate) type Names = Vec<String>;

/// Reads all files below `folder` whose name ends in `.extension`.
pub(crate) fn read(folder: &Path, extension: &str) -> Result<Files, String> {
    let mut files = Files::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        let fault = |error| format!("{}: {error}", next.display());
        for entry in std::fs::read_dir(&next).map_err(fault)? {
            let path = entry.map_err(fault)?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
                let name = path.strip_prefix(folder).map_err(|error| error.to_string())?;
                files.insert(name.to_string_lossy().into_owned(), text);
            }
        }
    }
    Ok(files)
}

/// A module: its items without what only tests see, and the features that it depends on.
#[derive(Debug, Default)]
pub(crate) struct Module {
    pub(crate) items: Vec<Item>,
    pub(crate) features: BTreeSet<String>,
}

/// What a path leads to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Target {
    Module(Names),
    /// The module in which the item is defined, and its name there.
    Item(Names, String),
}

/// All modules of a crate, by their path from its root.
#[derive(Debug, Default)]
pub(crate) struct Modules(BTreeMap<Names, Module>);

impl Modules {
    /// Parses `lib.rs` and every module that it declares, private ones too.
    pub(crate) fn parse(files: &Files) -> Result<Self, String> {
        let mut modules = Self::default();
        modules.parse_file(files, "lib.rs", &[], BTreeSet::new())?;
        Ok(modules)
    }

    fn parse_file(
        &mut self,
        files: &Files,
        file: &str,
        path: &[String],
        features: BTreeSet<String>,
    ) -> Result<(), String> {
        let text = files.get(file).ok_or_else(|| format!("{file} is declared as a module and is not there"))?;
        let parsed = syn::parse_file(text).map_err(|error| format!("{file}: {error}"))?;
        self.take(files, parsed.items, path, features)
    }

    fn take(
        &mut self,
        files: &Files,
        items: Vec<Item>,
        path: &[String],
        features: BTreeSet<String>,
    ) -> Result<(), String> {
        let items: Vec<Item> = items.into_iter().filter(|item| !only_for_tests(attributes(item))).collect();
        for item in &items {
            let Item::Mod(module) = item else { continue };
            if module.attrs.iter().any(|attribute| attribute.path().is_ident("path")) {
                return Err(format!("the module {} has #[path], which is not understood", module.ident));
            }
            let child = [path, &[name(&module.ident)]].concat();
            let features = &features | &features_of(&module.attrs);
            match &module.content {
                Some((_, items)) => self.take(files, items.clone(), &child, features)?,
                None => self.parse_file(files, &format!("{}.rs", child.join("/")), &child, features)?,
            }
        }
        self.0.insert(path.to_vec(), Module { items, features });
        Ok(())
    }

    /// The module at `path`; every path that this type gave out leads to one.
    pub(crate) fn module(&self, path: &[String]) -> &Module {
        &self.0[path]
    }

    /// All modules.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Names, &Module)> {
        self.0.iter()
    }

    /// What `path` means in the module `from`; `None` when it leads out of the crate, or nowhere.
    pub(crate) fn resolve(&self, from: &[String], path: &[String]) -> Option<Target> {
        self.resolve_within(from, path, 0)
    }

    fn resolve_within(&self, from: &[String], path: &[String], depth: usize) -> Option<Target> {
        // No real chain of imports is as long; a circle is.
        if depth > 32 {
            return None;
        }
        let (mut at, mut rest) = (from.to_vec(), path);
        while let Some((first, others)) = rest.split_first() {
            match first.as_str() {
                "crate" => at.clear(),
                "self" => {}
                "super" => drop(at.pop()?),
                _ => break,
            }
            rest = others;
        }
        let mut target = Target::Module(at);
        for segment in rest {
            let Target::Module(module) = target else { return None };
            target = self.look_up(&module, segment, depth + 1)?;
        }
        Some(target)
    }

    fn look_up(&self, module: &[String], wanted: &str, depth: usize) -> Option<Target> {
        let child = [module, &[wanted.to_owned()]].concat();
        if self.0.contains_key(&child) {
            return Some(Target::Module(child));
        }
        let items = &self.0.get(module)?.items;
        if items.iter().any(|item| defined_name(item).is_some_and(|found| found == wanted)) {
            return Some(Target::Item(module.to_vec(), wanted.to_owned()));
        }
        let imports = items.iter().filter_map(|item| if let Item::Use(import) = item { Some(import) } else { None });
        let imports: Vec<Import> = imports.flat_map(|import| flatten(&import.tree)).collect();
        let named = imports.iter().find(|import| import.name.as_deref() == Some(wanted));
        if let Some(import) = named {
            return self.resolve_within(module, &import.path, depth);
        }
        imports.iter().filter(|import| import.name.is_none()).find_map(|glob| {
            match self.resolve_within(module, &glob.path, depth)? {
                Target::Module(inside) if inside != module => self.look_up(&inside, wanted, depth + 1),
                _ => None,
            }
        })
    }
}

/// One path of a `use`, and the name under which it is imported; none for `*`.
#[derive(Debug)]
pub(crate) struct Import {
    pub(crate) path: Names,
    pub(crate) name: Option<String>,
}

/// Takes the braces of a `use` apart.
pub(crate) fn flatten(tree: &UseTree) -> Vec<Import> {
    fn descend(tree: &UseTree, path: &[String], into: &mut Vec<Import>) {
        let with = |ident| match name(ident) {
            // `use a::{self, b}`
            own if own == "self" && !path.is_empty() => path.to_vec(),
            own => [path, &[own]].concat(),
        };
        match tree {
            UseTree::Path(tree) => descend(&tree.tree, &[path, &[name(&tree.ident)]].concat(), into),
            UseTree::Name(tree) => {
                let path = with(&tree.ident);
                into.push(Import { name: path.last().cloned(), path });
            }
            UseTree::Rename(tree) => into.push(Import { path: with(&tree.ident), name: Some(name(&tree.rename)) }),
            UseTree::Glob(_) => into.push(Import { path: path.to_vec(), name: None }),
            UseTree::Group(tree) => tree.items.iter().for_each(|tree| descend(tree, path, into)),
        }
    }
    let mut imports = Vec::new();
    descend(tree, &[], &mut imports);
    imports
}

/// A name without the `r#` that a keyword needs.
pub(crate) fn name(ident: &syn::Ident) -> String {
    ident.unraw().to_string()
}

/// The features that `#[cfg]`s name.
pub(crate) fn features_of(attributes: &[Attribute]) -> BTreeSet<String> {
    let conditions = conditions(attributes);
    // The texts between quotes are every second piece.
    conditions.iter().flat_map(|condition| condition.split('"').skip(1).step_by(2).map(str::to_owned)).collect()
}

/// Whether a `#[cfg]` leaves something to tests.
pub(crate) fn only_for_tests(attributes: &[Attribute]) -> bool {
    conditions(attributes).iter().any(|condition| {
        let outside_quotes: String = condition.split('"').step_by(2).collect();
        let mut words = outside_quotes.split(|c: char| !c.is_alphanumeric() && c != '_');
        words.clone().any(|word| word == "test") && !words.any(|word| word == "not")
    })
}

fn conditions(attributes: &[Attribute]) -> Vec<String> {
    let lists = attributes.iter().filter(|attribute| attribute.path().is_ident("cfg"));
    lists.filter_map(|attribute| Some(attribute.meta.require_list().ok()?.tokens.to_string())).collect()
}

/// The attributes of an item.
pub(crate) fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::ExternCrate(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::ForeignMod(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::TraitAlias(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// Whether an item is `pub`, without more.
pub(crate) fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

/// The name that an item defines.
pub(crate) fn defined_name(item: &Item) -> Option<String> {
    let ident = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::TraitAlias(item) => &item.ident,
        Item::Type(item) => &item.ident,
        Item::Union(item) => &item.ident,
        _ => return None,
    };
    Some(name(ident))
}
