//! `[auth]`: how one signs in, and the providers and directories that people come from.

use std::path::PathBuf;
use std::time::Duration;

use super::super::ldap::{LdapFilter, LdapUrl};
use super::super::section::section;
use super::super::value::{HttpUrl, Secret, choice};

choice! {
    /// What clients are asked for.
    pub enum Challenge {
        /// A token from this registry's token endpoint.
        Bearer = "bearer",
        /// User and password with each request.
        Basic = "basic",
    }
}

section! {
    /// How people prove who they are.
    pub struct Auth {
        /// What a request without credentials is asked for. User and password are accepted either way; `basic` is only
        /// allowed while nobody may do anything without credentials.
        challenge: Challenge = Challenge::Bearer => restart;
        /// Issues refresh tokens to clients that ask for one. Docker then stores this token instead of the password, and
        /// pull secrets copied from its file end with the token.
        identity_tokens: bool = false => restart;
        /// Name of this registry in tokens and challenges. A change ends all tokens.
        service: String = "wharf".to_owned() => restart;
        /// Time that a token is valid which only reads. Rights are looked up with each request, whatever the token says.
        token_lifetime: Duration = Duration::from_secs(15 * 60) => restart;
        /// Time that a token is valid which may push or delete; at least `token_lifetime`.
        push_token_lifetime: Duration = Duration::from_secs(60 * 60) => restart;
        /// Time after the end of a token in which it may still go on with uploads that its user began.
        upload_grace: Duration = Duration::from_secs(6 * 3600) => restart;
        /// Longest life of robots, their secrets and API tokens.
        longest_lifetime: Duration = Duration::from_secs(365 * 86_400) => restart;
        /// Time after which another key signs tokens.
        key_rotation: Duration = Duration::from_secs(30 * 86_400) => restart;
        /// Passwords checked at the same time. Unset: half the number of processors, at least 1.
        password_threads: Option<u32> = None => restart;
        /// Longest life of a session in the browser, after which one signs in anew.
        session_lifetime: Duration = Duration::from_secs(12 * 3600) => restart;
        /// Time after which a session ends that nobody used.
        session_idle: Duration = Duration::from_secs(2 * 3600) => restart;
        /// Time between two looks whether the provider of a session still knows the account, and what groups it is in;
        /// 10 s at least.
        session_check: Duration = Duration::from_secs(600) => restart;
        /// Longest life of a terminal that somebody signed in (`wharf login`), after which one signs in anew.
        terminal_lifetime: Duration = Duration::from_secs(90 * 86_400) => restart;
        /// Time after which a terminal ends that nobody used.
        terminal_idle: Duration = Duration::from_secs(30 * 86_400) => restart;
        tables oidc = "oidc": Oidc;
        tables ldap = "ldap": Ldap;
    }
}

choice! {
    /// How far below its base a search looks.
    pub enum LdapScope {
        /// At the base alone.
        Base = "base",
        /// Right below it.
        One = "one",
        /// At it and below it.
        Subtree = "subtree",
    }
}

choice! {
    /// How groups inside groups count.
    pub enum LdapNested {
        /// Not at all.
        Off = "off",
        /// Each group's own groups are asked for, to a depth of 10.
        Walk = "walk",
        /// The server follows them, as Active Directory does.
        Chain = "chain",
    }
}

choice! {
    /// What names a member of a group.
    pub enum LdapMember {
        /// The distinguished name.
        Dn = "dn",
        /// The user name.
        Name = "name",
    }
}

choice! {
    /// What a provider is to ask people at each sign-in.
    pub enum ProviderPrompt {
        /// What it finds right.
        Usual = "usual",
        /// Whether they agree to what the registry learns.
        Consent = "consent",
        /// Who they are.
        Login = "login",
        /// Which of their accounts it is to be.
        SelectAccount = "select_account",
    }
}

choice! {
    /// Where a session ends that was begun with a provider.
    pub enum ProviderLogout {
        /// Here alone.
        Here = "here",
        /// Here, and then the browser is sent to the provider to sign out there, too.
        Provider = "provider",
    }
}

choice! {
    /// For whom a user is made at the first sign-in.
    pub enum Onboarding {
        /// For everybody whom the provider lets in.
        Auto = "auto",
        /// For nobody: an administrator links each account with `wharf user link`.
        Invited = "invited",
    }
}

section! {
    /// An LDAP directory, such as OpenLDAP or Active Directory, whose people sign in with the password that they have there. Local
    /// users and those of the htpasswd file come first: a name that exists here is never asked for there. Several directories are
    /// asked in their order.
    pub struct Ldap {
        /// What the directory is called here: in names of groups (`wharf group`), logs and commands. It is not to change: whoever came
        /// from it is known by it.
        name: String = String::new() => restart.required();
        /// Its servers, 1 to 16, `ldaps://HOST` or `ldap://HOST`, with a port if it is not 636 or 389. All hold the same. They are asked in
        /// this order, and one that failed is left alone for a while.
        urls: Vec<LdapUrl> = Vec::new() => restart.required();
        /// Begins TLS on a connection to `ldap://` before anything is said there.
        start_tls: bool = false => restart;
        /// Allows passwords to cross the network in the open: `ldap://` without `start_tls` to other machines.
        allow_unencrypted: bool = false => restart;
        /// PEM file with the certificate authorities that vouch for the servers. Unset: those that this machine trusts.
        ca_file: Option<PathBuf> = None => restart;
        /// Distinguished name of the account that searches. Empty: searching without one.
        search_dn: String = String::new() => restart;
        /// Its password.
        search_password: Option<Secret> = None => restart.secret();
        /// Distinguished name below which people are.
        base_dn: String = String::new() => restart.required();
        /// How far below `base_dn` people are.
        scope: LdapScope = LdapScope::Subtree => restart;
        /// Who of them may sign in, as an LDAP filter. Whoever it does not fit any more loses tokens and sessions here. Unset: everybody.
        filter: Option<LdapFilter> = None => restart;
        /// Attribute with the user name. `sAMAccountName` for Active Directory.
        user_attribute: String = "uid".to_owned() => restart;
        /// Attribute that stays the same when all else changes, by which people are known. Unset: the first of `entryUUID`, `objectGUID`,
        /// `nsUniqueId`, `ipaUniqueID` and `GUID` that an entry has, else its distinguished name, with which whoever is renamed becomes
        /// somebody else; so does `dn`.
        id_attribute: Option<String> = None => restart;
        /// Attribute of a person that names groups, such as `memberOf`. Unset: not asked for.
        member_of: Option<String> = None => restart;
        /// Distinguished name below which groups count. Whoever may make groups there can make members of them. Unset: `base_dn`.
        group_base_dn: Option<String> = None => restart;
        /// How far below `group_base_dn` groups are searched.
        group_scope: LdapScope = LdapScope::Subtree => restart;
        /// What a group is, where groups are searched by their members.
        group_filter: LdapFilter = LdapFilter::groups() => restart;
        /// Attribute with a group's name.
        group_name_attribute: String = "cn".to_owned() => restart;
        /// Attribute of a group that names members, such as `member`, `uniqueMember` or `memberUid`: groups are searched by it.
        /// Unset: they are not searched.
        group_member_attribute: Option<String> = None => restart;
        /// What stands there: `dn`, or `name` for the user's name, as in `memberUid`.
        group_member: LdapMember = LdapMember::Dn => restart;
        /// Groups inside groups: `off`; `walk` asks for each group's own groups, to a depth of 10; `chain` has Active Directory follow
        /// them (rule 1.2.840.113556.1.4.1941).
        nested: LdapNested = LdapNested::Off => restart;
        /// Names of the groups that count, with `*` for anything. Empty: all below `group_base_dn`.
        groups: Vec<String> = Vec::new() => restart;
        /// Group whose members are administrators here: its name, or its distinguished name. Unset: none.
        admin_group: Option<String> = None => restart;
        /// For whom a user is made at the first sign-in: `auto` for everybody whom the directory lets in, `invited` for nobody.
        onboarding: Onboarding = Onboarding::Auto => restart;
        /// Time for connecting, TLS included: from 100 ms to 60 s.
        connect_timeout: Duration = Duration::from_secs(3) => restart;
        /// Time for each answer: from 100 ms to 60 s.
        read_timeout: Duration = Duration::from_secs(5) => restart;
        /// Questions to the directory at the same time, from 1 to 1000; each has a connection that searches and one that checks a
        /// password, which are kept for the next.
        connections: u32 = 8 => restart;
    }
}

section! {
    /// An OpenID provider with which people sign in to the pages of the registry. Its redirect URL is
    /// `<server.external_url>/auth/oidc/<name>/callback`.
    pub struct Oidc {
        /// Its name here, of `a-z`, `0-9`, `-`, `_` and `.`. Accounts belong to it, so it stays what it is.
        name: String = String::new() => restart.required();
        /// What the sign-in page calls it. Unset: its name.
        title: Option<String> = None => restart;
        /// Its `iss`, exactly as its discovery document has it.
        issuer: HttpUrl = HttpUrl(String::new()) => restart.required();
        /// What this registry is called there.
        client_id: String = String::new() => restart.required();
        /// The secret it got there. Unset: a public client.
        client_secret: Option<Secret> = None => restart.secret();
        /// Scopes that are asked for, `openid` always among them. Empty: of `profile`, `email`, `groups` and `offline_access` those that
        /// the provider says it knows.
        scopes: Vec<String> = Vec::new() => restart;
        /// What the provider is to ask people at each sign-in: `usual`, what it finds right; `consent`, `login` or `select_account`. Some
        /// give refresh tokens only with `consent`.
        prompt: ProviderPrompt = ProviderPrompt::Usual => restart;
        /// Claim that a new user's name is taken from.
        username_claim: String = "preferred_username".to_owned() => restart;
        /// Claim that holds the account's groups, as a list of text.
        groups_claim: String = "groups".to_owned() => restart;
        /// Who is in this group of the provider is administrator, as long as that is so.
        admin_group: Option<String> = None => restart;
        /// Groups that are taken notice of, with `*` for any text without `/` and `**` for any text. Empty: all.
        group_filter: Vec<String> = Vec::new() => restart;
        /// For whom a user is made at the first sign-in: `auto` for everybody whom the provider lets in, `invited` for nobody.
        onboarding: Onboarding = Onboarding::Invited => restart;
        /// What "Sign out" does: `here` ends the session here; `provider` then sends the browser to the provider, to sign out there, too.
        /// For that `<server.external_url>/auth/oidc/<name>/signed-out` is registered there as the address to come back to.
        logout: ProviderLogout = ProviderLogout::Here => restart;
        /// PEM file with certificate authorities to trust for it, in the place of the system's.
        ca_file: Option<PathBuf> = None => restart;
    }
}
