// Either half of the browser's tests: `provider CONFIG` serves an OpenID provider, `browse STEPS` drives Chromium.

const [half, ...rest] = process.argv.slice(2);
const { default: run } = await import(half === 'browse' ? './browse.mjs' : './provider.mjs');
await run(...rest);
