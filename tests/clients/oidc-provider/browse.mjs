// Drives Chromium through what stands in a file: {"profile", "program", "steps": [[what, ...with]]}. A profile keeps its cookies
// between runs, and is one person's browser. No page may run a script: all of them have to work without.
//
//   ["go", address]  ["fill", selector, text]  ["click", selector]  ["sees", text]  ["lacks", text]  ["at", beginning of the address]
//   ["tell", selector]: prints its text  ["shot", file, width, "light" or "dark"]

import { readFileSync } from 'node:fs';

import puppeteer from 'puppeteer-core';

const PATIENCE = 20_000;

const acts = {
  go: (page, to) => page.goto(to, { waitUntil: 'load' }),
  fill: async (page, selector, text) => {
    await page.waitForSelector(selector);
    await page.type(selector, text);
  },
  // The page that a press leads to may lead on by itself: what comes next waits for what it wants to see.
  click: async (page, selector) => {
    const found = await page.waitForSelector(selector);
    await Promise.all([page.waitForNavigation({ waitUntil: 'load' }), found.click()]);
  },
  sees: (page, text) => until(page, `to see ${JSON.stringify(text)}`, async () => (await shown(page)).includes(text)),
  lacks: async (page, text) => {
    if ((await shown(page)).includes(text)) throw new Error(`${JSON.stringify(text)} is there`);
  },
  at: (page, address) => until(page, `to be at ${address}`, () => page.url().startsWith(address)),
  tell: async (page, selector) => {
    await page.waitForSelector(selector);
    console.log(await page.$eval(selector, (found) => found.textContent.trim()));
  },
  shot: async (page, path, width, scheme) => {
    await page.setViewport({ width, height: 720 });
    await page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: scheme }]);
    await page.screenshot({ path, fullPage: true });
    const wide = await page.evaluate(() => document.documentElement.scrollWidth);
    if (wide > width) throw new Error(`at ${width} pixels the page is ${wide} wide`);
    await page.setViewport({ width: 1024, height: 720 });
  },
};

async function shown(page) {
  try {
    return await page.evaluate(() => document.body.innerText);
  } catch {
    // Between two pages.
    return '';
  }
}

async function until(page, what, good) {
  const end = Date.now() + PATIENCE;
  while (!(await good())) {
    if (Date.now() > end) throw new Error(`waited ${what}, and is at ${page.url()}:\n${await shown(page)}`);
    await new Promise((done) => { setTimeout(done, 50); });
  }
}

export default async function run(file) {
  const { profile, program, steps } = JSON.parse(readFileSync(file, 'utf8'));
  const browser = await puppeteer.launch({
    executablePath: program,
    userDataDir: profile,
    acceptInsecureCerts: true,
    defaultViewport: { width: 1024, height: 720 },
    // As root in a container there is no sandbox, and little shared memory.
    args: ['--no-sandbox', '--disable-dev-shm-usage', '--no-proxy-server', '--disable-background-networking', '--lang=en'],
  });
  try {
    const [page] = await browser.pages();
    page.setDefaultTimeout(PATIENCE);
    await page.setJavaScriptEnabled(false);
    for (const [what, ...values] of steps) {
      try {
        await acts[what](page, ...values);
      } catch (error) {
        throw new Error(`${what} ${values.join(' ')} at ${page.url()}: ${error.message}\n${await shown(page)}`);
      }
    }
  } finally {
    await browser.close();
  }
}
