// Writes docs/config.md from the table of settings.
import { writeFileSync } from 'node:fs'
import { configDocument } from '../lib/cli/config-document.ts'

writeFileSync(new URL('../docs/config.md', import.meta.url), configDocument())
