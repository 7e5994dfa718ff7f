//! What goes with the plugin: the kubelet's configuration, and the right of nodes to ask for tokens.

use serde_json::Value;

use super::{Entry, USER, VERSION};

/// What the plugin is called on nodes.
pub const NAME: &str = "wharf-credential-provider";

/// What a node's configuration is made for.
#[derive(Debug, Clone)]
pub struct Node {
    /// The registries that it is asked about.
    pub entries: Vec<Entry>,
    /// Whom tokens are asked for.
    pub audience: String,
    /// Name of the program: one for each audience, since a provider has one.
    pub name: String,
    /// Where the program lies.
    pub folder: String,
    /// Where the configuration lies.
    pub file: String,
    /// The name that goes with tokens.
    pub user: String,
    /// Pods without a service account, as static ones, are not asked about.
    pub needs_account: bool,
}

/// A text of YAML: JSON's are.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// The kubelet's CredentialProviderConfig (K8SCRED-3), with words on where it goes.
pub fn config(node: &Node) -> String {
    let Node {
        name, folder, file, ..
    } = node;
    let hosts: String = node
        .entries
        .iter()
        .map(|entry| format!("  - {}\n", quoted(&entry.to_string())))
        .collect();
    let mut args = vec!["--audience".to_owned(), node.audience.clone()];
    for entry in &node.entries {
        args.extend(["--registry".to_owned(), entry.to_string()]);
    }
    if node.user != USER {
        args.extend(["--username".to_owned(), node.user.clone()]);
    }
    let args: String = args
        .iter()
        .map(|one| format!("  - {}\n", quoted(one)))
        .collect();
    format!(
        "# On each node, Kubernetes 1.34 or later:\n\
         #   1. the program `wharf` as {folder}/{name} (a copy, or a link to it)\n\
         #   2. this file as {file}; a kubelet reads one, so other providers' entries go into the same\n\
         #   3. the kubelet with --image-credential-provider-bin-dir={folder}\n\
         #      and --image-credential-provider-config={file}, then restart it\n\
         # Once for the cluster: wharf credential-provider cluster-role --audience {audience} | kubectl apply -f -\n\
         # Once for the registry: wharf workload trust kubernetes --help\n\
         apiVersion: kubelet.config.k8s.io/v1\n\
         kind: CredentialProviderConfig\n\
         providers:\n\
         - name: {quoted_name}\n  \
           apiVersion: {VERSION}\n  \
           matchImages:\n{hosts}  \
           defaultCacheDuration: \"0s\"\n  \
           args:\n{args}  \
           tokenAttributes:\n    \
             serviceAccountTokenAudience: {quoted_audience}\n    \
             # The password is the token, so it is good for no longer than that.\n    \
             cacheType: Token\n    \
             requireServiceAccount: {needs}\n",
        audience = node.audience,
        quoted_name = quoted(name),
        quoted_audience = quoted(&node.audience),
        needs = node.needs_account,
    )
}

/// The right of nodes to ask for tokens for that audience (K8SCRED-4), for `kubectl apply -f -`.
pub fn cluster_role(audience: &str) -> String {
    let audience = quoted(audience);
    format!(
        "# Nodes may ask for tokens that pods do not mount only for audiences that a role names.\n\
         apiVersion: rbac.authorization.k8s.io/v1\n\
         kind: ClusterRole\n\
         metadata:\n  name: {NAME}\n\
         rules:\n\
         - apiGroups: [\"\"]\n  resources: [{audience}]\n  verbs: [\"request-serviceaccounts-token-audience\"]\n\
         ---\n\
         apiVersion: rbac.authorization.k8s.io/v1\n\
         kind: ClusterRoleBinding\n\
         metadata:\n  name: {NAME}\n\
         roleRef:\n  apiGroup: rbac.authorization.k8s.io\n  kind: ClusterRole\n  name: {NAME}\n\
         subjects:\n\
         - apiGroup: rbac.authorization.k8s.io\n  kind: Group\n  name: system:nodes\n"
    )
}
