import { Command, CommanderError } from 'commander'
import { SsrlError } from '../errors.ts'
import { environmentHelp } from './help.ts'
import { Interrupted } from './interrupt.ts'

interface CommandEntry {
  name: string
  summary: string
  load: () => Promise<Command>
}

/** Each command's module is imported only when it is asked for, so that `--help` is quick. */
const commands: CommandEntry[] = [
  {
    name: 'quickstart',
    summary: 'watch a small policy learn to search its own memory, or your own',
    load: async () => (await import('./quickstart.ts')).quickstartCommand(),
  },
  {
    name: 'train',
    summary: 'train a policy to search its own memory (SSRL)',
    load: async () => (await import('./train.ts')).trainCommand(),
  },
  {
    name: 'sft',
    summary: 'fine-tune a policy on examples',
    load: async () => (await import('./sft.ts')).sftCommand(),
  },
  {
    name: 'bootstrap',
    summary: 'make demonstrations for a cold start',
    load: async () => (await import('./bootstrap.ts')).bootstrapCommand(),
  },
  {
    name: 'simulator',
    summary: 'make examples that tune a model to play the search engine (ZeroSearch)',
    load: async () => (await import('./simulator.ts')).simulatorCommand(),
  },
  {
    name: 'eval',
    summary: 'evaluate a policy or an endpoint on question files',
    load: async () => (await import('./eval.ts')).evalCommand(),
  },
  {
    name: 'generate',
    summary: 'sample completions of a prompt',
    load: async () => (await import('./generate.ts')).generateCommand(),
  },
  {
    name: 'chat',
    summary: 'ask a policy, and watch it think, search and answer',
    load: async () => (await import('./chat.ts')).chatCommand(),
  },
  {
    name: 'index',
    summary: 'make a local search index of a corpus (BM25)',
    load: async () => (await import('./search-index.ts')).indexCommand(),
  },
  {
    name: 'retrieve',
    summary: "serve a corpus by Search-R1's /retrieve protocol",
    load: async () => (await import('./retrieve.ts')).retrieveCommand(),
  },
  {
    name: 'serve',
    summary: 'serve a policy by the OpenAI protocol',
    load: async () => (await import('./serve.ts')).serveCommand(),
  },
  {
    name: 'export',
    summary: 'write a policy for other software: Hugging Face layout or GGUF',
    load: async () => (await import('./export.ts')).exportCommand(),
  },
  {
    name: 'inspect',
    summary: 'what a policy or a run folder is, its sizes, and what it needs',
    load: async () => (await import('./inspect.ts')).inspectCommand(),
  },
  {
    name: 'score',
    summary: 'score completions that already exist',
    load: async () => (await import('./score.ts')).scoreCommand(),
  },
  {
    name: 'doctor',
    summary: 'what this machine offers, what is missing and what to do about it',
    load: async () => (await import('./doctor.ts')).doctorCommand(),
  },
  {
    name: 'bench',
    summary: 'measure this library, and other programs at the same work (in the repository)',
    load: async () => (await import('./bench.ts')).benchCommand(),
  },
]

const exitCodes = { ok: 0, failed: 1, usage: 2, interrupted: 130 }

/** Runs one command line and returns its exit code: 0, 1 (it failed), 2 (wrong usage) or 130 (interrupted). */
export async function run(argv: string[]): Promise<number> {
  surviveClosedPipes()
  const program = await createProgram(argv)
  try {
    await program.parseAsync(argv, { from: 'user' })
    return process.exitCode === undefined ? exitCodes.ok : Number(process.exitCode)
  } catch (error) {
    return reportError(error, argv)
  }
}

/** `ssrl … | head` closes our stdout early: nobody reads on, so there is nothing left to do. */
function surviveClosedPipes(): void {
  for (const stream of [process.stdout, process.stderr]) {
    stream.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'EPIPE') process.exit(exitCodes.ok)
      throw error
    })
  }
}

async function createProgram(argv: string[]): Promise<Command> {
  const program = new Command('ssrl')
    .description('Train language models to search their own memory, by reinforcement learning.')
    .version(await packageVersion(), '-V, --version', 'print the version')
    .helpOption('-h, --help', 'show help')
    .showSuggestionAfterError()
    .addHelpText('after', `\n${environmentHelp()}`)
    .exitOverride()
  const words = argv.filter((word) => !word.startsWith('-'))
  const wanted = words[0] === 'help' ? words[1] : words[0]
  for (const entry of commands) {
    const command = entry.name === wanted ? await entry.load() : new Command(entry.name)
    program.addCommand(prepare(command, entry, program))
  }
  if (argv.length === 0) program.action(() => program.help({ error: true }))
  return program
}

function prepare(command: Command, entry: CommandEntry, program: Command): Command {
  command.copyInheritedSettings(program).summary(entry.summary)
  if (command.description() === '') command.description(entry.summary)
  if (!command.options.some((option) => option.long === '--verbose')) {
    command.option('--verbose', 'on failure, show the stack and the causes')
  }
  return command
}

async function packageVersion(): Promise<string> {
  const { readFile } = await import('node:fs/promises')
  const manifest = await readFile(new URL('../../package.json', import.meta.url), 'utf8')
  return (JSON.parse(manifest) as { version: string }).version
}

/** One clear message on stderr; the stack only with `--verbose`. */
function reportError(error: unknown, argv: string[]): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? exitCodes.ok : exitCodes.usage
  if (error instanceof Interrupted) {
    console.error(error.message)
    return exitCodes.interrupted
  }
  const verbose = argv.includes('--verbose')
  console.error(verbose ? describeFully(error) : describe(error))
  const wrongUsage =
    error instanceof SsrlError && ['ERR_INVALID_CONFIG', 'ERR_INVALID_ARG'].includes(error.code)
  return wrongUsage ? exitCodes.usage : exitCodes.failed
}

function describe(error: unknown): string {
  if (error instanceof SsrlError) return `error ${error.code}: ${error.message}`
  const message = error instanceof Error ? `${error.name}: ${error.message}` : String(error)
  return `error: ${message}\n(this was not foreseen; --verbose shows where it happened)`
}

function describeFully(error: unknown): string {
  if (!(error instanceof Error)) return describe(error)
  const code = error instanceof SsrlError ? `error ${error.code}: ` : 'error: '
  const cause = error.cause === undefined ? '' : `\ncaused by ${describeFully(error.cause)}`
  return `${code}${error.stack ?? error.message}${cause}`
}
