// Either half of the browser's tests: `provider CONFIG` serves an OpenID provider, `browse` drives Chromium as its input says.

const [half, ...rest] = process.argv.slice(2);
const { default: run } = await import(half === 'browse' ? './browse.mjs' : './provider.mjs');
await run(...rest);
