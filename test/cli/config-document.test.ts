import { readFile } from 'node:fs/promises'
import test from 'ava'
import { configDocument } from '../../lib/cli/config-document.ts'
import { settings } from '../../lib/training/config.ts'

test('docs/config.md is what the table of settings says', async (t) => {
  const written = await readFile(new URL('../../docs/config.md', import.meta.url), 'utf8')
  t.is(written, configDocument(), 'run: npm run docs:config')
})

test('every setting of the table is documented', (t) => {
  const document = configDocument()
  for (const name of Object.keys(settings)) t.true(document.includes(`| \`${name}\``), name)
})
