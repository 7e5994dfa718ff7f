// An OpenID provider (panva's oidc-provider, certified) over HTTPS, with pages of its own and people in a file that is read for each
// question. What it knows survives a restart, so that a test can take it down, or give it other keys or another name.

import { generateKeyPairSync } from 'node:crypto';
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:https';

import Provider from 'oidc-provider';

const read = (file) => JSON.parse(readFileSync(file, 'utf8'));

/** Kept in one file, written anew with each change: nobody measures this. */
function kept(file) {
  let rows = {};
  try { rows = read(file); } catch { /* the first start */ }
  const write = () => { writeFileSync(`${file}.new`, JSON.stringify(rows)); renameSync(`${file}.new`, file); };
  const find = (test) => Object.values(rows).find(test);
  return class {
    constructor(model) { this.model = model; }
    key(id) { return `${this.model}:${id}`; }
    async upsert(id, payload) { rows[this.key(id)] = { model: this.model, payload }; write(); }
    async find(id) { return rows[this.key(id)]?.payload; }
    async findByUid(uid) { return find((row) => row.model === this.model && row.payload.uid === uid)?.payload; }
    async findByUserCode(code) { return find((row) => row.model === this.model && row.payload.userCode === code)?.payload; }
    async consume(id) { rows[this.key(id)].payload.consumed = Math.floor(Date.now() / 1000); write(); }
    async destroy(id) { delete rows[this.key(id)]; write(); }
    async revokeByGrantId(grantId) {
      for (const [key, row] of Object.entries(rows)) if (row.payload.grantId === grantId) delete rows[key];
      write();
    }
  };
}

const escaped = (text) => String(text).replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);
const page = (title, body) => `<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">`
  + `<title>${title}</title><style>body{font:1rem sans-serif;margin:3rem auto;max-width:20rem}</style><h1>${title}</h1>${body}</html>`;

/** Asks who it is, then whether that is fine. */
async function interact(provider, people, request, response) {
  const { prompt, params, session } = await provider.interactionDetails(request, response);
  if (request.method !== 'POST') {
    const fields = prompt.name === 'login'
      ? '<input name="login" placeholder="name"><input name="password" type="password">'
      : `<p>${escaped(params.client_id)} asks for ${escaped(params.scope)}</p>`;
    response.setHeader('content-type', 'text/html');
    response.end(page('Example Inc.', `<form method="post">${fields}<button>Continue</button></form>`));
    return;
  }
  let body = '';
  for await (const piece of request) body += piece;
  const form = new URLSearchParams(body);
  if (prompt.name === 'login') {
    const person = read(people)[form.get('login')];
    const result = person && person.password === form.get('password')
      ? { login: { accountId: form.get('login'), remember: true } }
      : { error: 'access_denied', error_description: 'wrong name or password' };
    await provider.interactionFinished(request, response, result);
    return;
  }
  const grant = new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
  grant.addOIDCScope(params.scope);
  await provider.interactionFinished(request, response, { consent: { grantId: await grant.save() } }, { mergeWithLastSubmission: true });
}

export default async function run(file) {
  const config = read(file);
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const key = { ...privateKey.export({ format: 'jwk' }), kid: config.kid, use: 'sig', alg: 'RS256' };
  const provider = new Provider(config.issuer, {
    adapter: kept(config.kept),
    jwks: { keys: [key] },
    cookies: { keys: ['a test'] },
    clients: [config.client],
    scopes: ['openid', 'offline_access', 'profile', 'email', 'groups'],
    claims: { openid: ['sub'], profile: ['preferred_username', 'name'], groups: ['groups'] },
    features: { devInteractions: { enabled: false }, backchannelLogout: { enabled: true }, rpInitiatedLogout: { enabled: true } },
    rotateRefreshToken: true,
    // Its own way asks no loopback address, which is where the registry is.
    fetch: (url, { dispatcher, ...options }) => fetch(url, options),
    interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
    findAccount: (_, name) => {
      const person = read(config.people)[name];
      return person && {
        accountId: name,
        claims: () => ({ sub: name, preferred_username: person.name, name: person.name, groups: person.groups }),
      };
    },
  });
  for (const event of ['authorization.error', 'grant.error', 'backchannel.success', 'backchannel.error', 'server_error', 'userinfo.error']) {
    provider.on(event, (ctx, error) => console.error(event, error?.message ?? '', error?.error_description ?? '', error?.cause ?? ''));
  }
  const serve = provider.callback();
  const tls = { cert: readFileSync(config.cert), key: readFileSync(config.key) };
  createServer(tls, (request, response) => {
    if (!request.url.startsWith('/interaction/')) return serve(request, response);
    interact(provider, config.people, request, response).catch((error) => {
      console.error(error);
      response.statusCode = 500;
      response.end(page('That did not work', escaped(error.message)));
    });
    return undefined;
  }).listen(config.port, '127.0.0.1');
}
