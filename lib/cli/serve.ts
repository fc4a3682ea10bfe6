import path from 'node:path'
import { Command } from 'commander'
import type { Policy } from '../policy/policy.ts'
import { addPolicyOptions, integer, note, number, type PolicyOptions, print } from './common.ts'
import { onInterrupt } from './interrupt.ts'
import { addSearchOptions, openSearch, type SearchFlags } from './search-options.ts'

interface ServeFlags extends PolicyOptions, SearchFlags {
  port: number
  host: string
  modelName?: string
  promptTemplate?: string
  maxNewTokens?: number
  maxPending: number
  maxBodyBytes: number
  grace: number
}

/** `ssrl serve`: an OpenAI-compatible server over one policy. */
export function serveCommand(): Command {
  const command = new Command('serve').description(
    'Serve a policy by the OpenAI protocol: /v1/chat/completions, /v1/completions and /v1/models, with streaming and log-probs. ' +
      'Prints the address. Ctrl-C lets answers under way finish. With SSRL_API_KEY set, requests must carry that key.',
  )
  addPolicyOptions(command)
    .option('--port <n>', '0 takes any that is free', integer({ min: 0, max: 65535 }), 8000)
    .option('--host <address>', 'who may reach it: 0.0.0.0 is everybody', '127.0.0.1')
    .option('--model-name <name>', "the model's name for requests (default: the last part of --policy)")
    .option(
      '--prompt-template <name>',
      "put this wording around the user's last turn: a built-in name, or a file with {question} (default: none)",
    )
    .option(
      '--max-new-tokens <n>',
      'largest completion of a request (default: what the context holds)',
      integer({ min: 1 }),
    )
    .option(
      '--max-pending <n>',
      'completions under way or waiting; a request beyond gets 429',
      integer({ min: 1 }),
      256,
    )
    .option('--max-body-bytes <n>', 'largest request', integer({ min: 1 }), 2 ** 20)
    .option('--grace <seconds>', 'time for answers under way after Ctrl-C', number({ min: 0 }), 30)
    .action(serve)
  return addSearchOptions(command, 'answer searches while the policy writes (default: nobody does)')
}

async function serve(flags: ServeFlags): Promise<void> {
  const { Policy } = await import('../policy/policy.ts')
  const { device, dtype, threads } = flags
  const loading = onInterrupt()
  let policy: Policy
  try {
    policy = await Policy.load(flags.policy, { device, dtype, threads, signal: loading.signal })
  } finally {
    loading.dispose()
  }
  try {
    await serveUntilInterrupted(policy, flags)
  } finally {
    await policy.dispose()
  }
}

async function serveUntilInterrupted(policy: Policy, flags: ServeFlags): Promise<void> {
  const { serveApp } = await import('../serve/serve-app.ts')
  const { listen } = await import('../serve/listen.ts')
  const apiKey = process.env.SSRL_API_KEY || undefined
  const interrupt = onInterrupt('letting answers under way finish; once more to leave at once')
  const searching = await openSearch(flags, interrupt.signal).catch((error: unknown) => {
    interrupt.dispose()
    throw error
  })
  try {
    const app = serveApp({
      policy,
      search: searching?.search,
      model: flags.modelName ?? nameOf(flags.policy),
      apiKey,
      maxNewTokens: flags.maxNewTokens,
      maxPending: flags.maxPending,
      maxBodyBytes: flags.maxBodyBytes,
      promptTemplate: await readTemplate(flags.promptTemplate),
      closing: interrupt.signal,
      onError: (error) => note(`error: ${error instanceof Error ? error.message : String(error)}`),
    })
    const server = await listen(app, { port: flags.port, host: flags.host })
    print(`${server.url}/v1`)
    if (apiKey === undefined && !isLoopback(flags.host)) {
      note(`warning: everybody who reaches ${flags.host} may ask; set SSRL_API_KEY to a key of your own`)
    }
    await fired(interrupt.signal)
    await server.close({ grace: flags.grace * 1000 })
  } finally {
    interrupt.dispose()
    await searching?.provider.close?.()
  }
}

function fired(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve()
    else signal.addEventListener('abort', () => resolve(), { once: true })
  })
}

async function readTemplate(nameOrPath: string | undefined) {
  if (nameOrPath === undefined) return undefined
  const { loadPromptTemplate } = await import('../rollout/prompts.ts')
  return loadPromptTemplate(nameOrPath)
}

const nameOf = (source: string) => path.basename(source.replace(/[/\\]+$/, ''), '.gguf')
const isLoopback = (host: string) => host === 'localhost' || host === '::1' || host.startsWith('127.')
