//! Groups of one person: named by the entry, found by a search, and those around them, in a bounded number of questions.

use std::collections::HashSet;

use wharf_core::directory::message::Entry;
use wharf_core::directory::{
    Dn, Filter, GROUPS, GroupSettings, MemberIs, NESTED, Nested, Scope, ServerUrl, Story,
};

use super::line::{Line, Trouble};
use super::{Stop, search};

/// Active Directory's rule that follows members of members.
const CHAIN: &str = "1.2.840.113556.1.4.1941";
/// Groups that one search asks about.
const BATCH: usize = 50;
/// Longest name of a group, in bytes.
const LONGEST_NAME: usize = 255;

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Groups {
    /// In order, each once.
    pub(super) names: Vec<String>,
    pub(super) admin: bool,
}

/// A group on the way.
#[derive(Debug)]
struct Group {
    dn: String,
    normal: Dn,
    name: Option<String>,
}

struct Walk<'a> {
    line: &'a mut Line,
    url: &'a ServerUrl,
    settings: &'a GroupSettings,
    base: Dn,
    seen: HashSet<String>,
    found: Vec<Group>,
    full: bool,
}

impl Walk<'_> {
    /// Takes a group in, once, if it is one that counts.
    fn add(&mut self, dn: &str, name: Option<String>) -> bool {
        let Ok(normal) = Dn::parse(dn) else {
            return false;
        };
        if !normal.is_within(&self.base) || self.seen.contains(&normal.normal()) {
            return false;
        }
        let name = name.or_else(|| normal.own(&self.settings.name_attribute).map(str::to_owned));
        // Where nothing is looked for around it, a group that counts for nothing takes nobody's place.
        let counts =
            |name: &String| self.settings.keeps(name) || self.settings.makes_admin(name, &normal);
        if self.settings.nested != Nested::Walk && !name.as_ref().is_none_or(counts) {
            return false;
        }
        if self.found.len() >= GROUPS {
            self.full = true;
            return false;
        }
        self.seen.insert(normal.normal());
        let dn = dn.to_owned();
        self.found.push(Group { dn, normal, name });
        true
    }

    /// Groups in which one of these is.
    async fn search(&mut self, member: Filter) -> Result<(), Stop> {
        let filter = self.settings.filter.clone().and(member);
        let attribute = self.settings.name_attribute.as_str();
        let (base, scope) = (self.settings.base.as_str(), self.settings.scope);
        // Never who else is in it: that can be all of a company.
        let found = search(self.line, self.url, base, scope, &filter, &[attribute], 0).await?;
        self.full |= found.cut;
        for entry in found.entries {
            let name = entry.texts(attribute).next().map(str::to_owned);
            self.add(&entry.dn, name);
        }
        Ok(())
    }

    /// Groups that an entry names itself.
    fn named(&mut self, entry: &Entry) {
        if let Some(attribute) = &self.settings.member_of {
            for dn in entry.texts(attribute) {
                self.add(dn, None);
            }
            self.full |= entry.is_partial(attribute);
        }
    }

    /// An entry of a group; nothing if it is not there or may not be seen.
    async fn read(&mut self, dn: &str) -> Result<Option<Entry>, Stop> {
        let any = Filter::Present("objectClass".to_owned());
        let mut attributes = vec![self.settings.name_attribute.as_str()];
        attributes.extend(self.settings.member_of.as_deref());
        let found = search(self.line, self.url, dn, Scope::Base, &any, &attributes, 1).await;
        match found {
            Ok(found) => Ok(found.entries.into_iter().next()),
            Err(Stop::Settings(_)) => Ok(None),
            Err(stop) => Err(stop),
        }
    }

    /// The groups around those from `start` on.
    async fn around(&mut self, start: usize) -> Result<(), Stop> {
        let dns: Vec<String> = self.found[start..]
            .iter()
            .map(|group| group.dn.clone())
            .collect();
        match self.settings.member_attribute.as_deref() {
            Some(attribute) if self.settings.member_is == MemberIs::Dn => {
                for batch in dns.chunks(BATCH) {
                    let any = batch.iter().map(|dn| Filter::equal(attribute, dn.as_str()));
                    self.search(Filter::Or(any.collect())).await?;
                }
            }
            _ => {
                for dn in dns {
                    if let Some(entry) = self.read(&dn).await? {
                        self.named(&entry);
                    }
                }
            }
        }
        Ok(())
    }
}

/// The groups of a person.
pub(super) async fn of(
    line: &mut Line,
    url: &ServerUrl,
    settings: &GroupSettings,
    entry: &Entry,
    dn: &Dn,
    name: &str,
    story: &mut Story,
) -> Result<Groups, Stop> {
    let base = Dn::parse(&settings.base).map_err(|error| {
        let what = format!("`group_base_dn`: {error}");
        let cure = "write a distinguished name of this directory";
        Stop::Settings(Trouble { what, cure })
    })?;
    let mut walk = Walk {
        line,
        url,
        settings,
        base,
        // Nobody is a group of their own.
        seen: HashSet::from([dn.normal()]),
        found: Vec::new(),
        full: false,
    };
    walk.named(entry);
    if let Some(attribute) = &settings.member_of {
        story.good(format!(
            "{attribute} of the entry names {} groups below {:?}",
            walk.found.len(),
            settings.base
        ));
    }
    if let Some(attribute) = settings.member_attribute.as_deref() {
        let before = walk.found.len();
        let value = match settings.member_is {
            MemberIs::Dn => entry.dn.as_str(),
            MemberIs::Name => name,
        };
        let member = match (settings.nested, settings.member_is) {
            (Nested::Chain, MemberIs::Dn) => Filter::Rule {
                rule: Some(CHAIN.to_owned()),
                attribute: Some(attribute.to_owned()),
                value: value.as_bytes().to_vec(),
                with_name: false,
            },
            _ => Filter::equal(attribute, value),
        };
        let shown = settings.filter.clone().and(member.clone());
        walk.search(member).await?;
        let more = walk.found.len() - before;
        story.good(format!(
            "{shown} below {:?} finds {more} more groups",
            settings.base
        ));
    }
    if settings.nested == Nested::Walk {
        let (mut start, mut depth) = (0, 0);
        while start < walk.found.len() && depth < NESTED && !walk.full {
            let next = walk.found.len();
            walk.around(start).await?;
            (start, depth) = (next, depth + 1);
            let more = walk.found.len() - next;
            if more > 0 {
                story.good(format!("{more} groups are around those, at depth {depth}"));
            }
        }
        if start < walk.found.len() && depth == NESTED {
            walk.full = true;
        }
    }
    // Names that their own step does not tell.
    for at in 0..walk.found.len() {
        if walk.found[at].name.is_none() {
            let dn = walk.found[at].dn.clone();
            let read = walk.read(&dn).await?;
            let name = read.and_then(|entry| {
                entry
                    .texts(&settings.name_attribute)
                    .next()
                    .map(str::to_owned)
            });
            walk.found[at].name = name;
        }
    }
    if walk.full {
        tracing::warn!(
            user = name,
            "there are more groups than are followed; only the nearest {GROUPS} count, to a depth of {NESTED}"
        );
        story.good(format!("there are more groups than are followed: the nearest {GROUPS} count, to a depth of {NESTED}"));
    }
    Ok(chosen(settings, walk.found, story))
}

/// Those that count, by name.
fn chosen(settings: &GroupSettings, found: Vec<Group>, story: &mut Story) -> Groups {
    let mut groups = Groups::default();
    for group in found {
        let Some(name) = group.name.filter(|name| fits(name)) else {
            story.good(format!(
                "{} is left out: it has no {} that can be a name",
                group.dn, settings.name_attribute
            ));
            continue;
        };
        groups.admin |= settings.makes_admin(&name, &group.normal);
        if settings.keeps(&name) {
            groups.names.push(name);
        }
    }
    // By this word rights know administrators; nobody else's group may be called so.
    if let Some(word) = settings.admin.as_deref() {
        groups.names.retain(|name| name != word);
        groups.names.extend(groups.admin.then(|| word.to_owned()));
    }
    groups.names.sort_unstable();
    groups.names.dedup();
    let searched = settings.member_of.is_some() || settings.member_attribute.is_some();
    story.good(match (searched, groups.names.as_slice()) {
        (false, _) => {
            "groups are not asked for (neither `member_of` nor `group_member_attribute` is set)"
                .to_owned()
        }
        (true, []) => "no group counts".to_owned(),
        (true, names) => format!("groups that count: {}", names.join(", ")),
    });
    if groups.admin {
        story.good("one of the groups makes administrators (`admin_group`)");
    }
    groups
}

fn fits(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= LONGEST_NAME
        && name.trim() == name
        && !name.chars().any(char::is_control)
}
