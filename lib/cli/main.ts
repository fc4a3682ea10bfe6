#!/usr/bin/env node
import { run } from './program.ts'

process.exitCode = await run(process.argv.slice(2))
// Whatever still holds the event loop (a socket kept alive, say) must not keep the shell waiting.
setTimeout(() => process.exit(), 2000).unref()
