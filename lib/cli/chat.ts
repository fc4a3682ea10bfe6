import { randomInt } from 'node:crypto'
import { Command } from 'commander'
import { SsrlError } from '../errors.ts'
import type { Policy } from '../policy/policy.ts'
import { samplingDefaults } from '../policy/sampling.ts'
import type { Search } from '../rollout/search.ts'
import type { WrittenRow } from '../rollout/search-row.ts'
import { BlockPainter } from './block-painter.ts'
import { Conversation } from './chat-history.ts'
import { readQuestions } from './chat-input.ts'
import { type Painter, painterFor } from './colors.ts'
import {
  addPolicyOptions,
  addSamplingOptions,
  note,
  type PolicyOptions,
  type SamplingFlags,
} from './common.ts'
import { Interrupted, onInterrupt } from './interrupt.ts'
import { addSearchOptions, type OpenedSearch, openSearch, type SearchFlags } from './search-options.ts'

interface ChatFlags extends PolicyOptions, SamplingFlags, SearchFlags {
  search: string
  maxNewTokens: number
  promptTemplate?: string
  history: boolean
}

/** `ssrl chat`: questions, and the answers as they are written. */
export function chatCommand(): Command {
  const command = new Command('chat')
    .description(
      'Ask a policy, and watch it think, search, read and answer. Questions come from the terminal, or one a line from a pipe. ' +
        'Ctrl-C stops the answer, twice leaves.',
    )
    .option(
      '--prompt-template <name>',
      "wording around each question: a built-in name, or a file with {question} (default: self-search, or search where --search is not 'self')",
    )
    .option('--no-history', 'each question stands alone')
    .action(chat)
  const { temperature, topP, topK, minP } = samplingDefaults
  addSamplingOptions(
    addPolicyOptions(command),
    { temperature, topP, topK, minP, maxNewTokens: 512 },
    { stops: false },
  )
  return addSearchOptions(command, 'who answers searches', 'self')
}

async function chat(flags: ChatFlags): Promise<void> {
  const { Policy } = await import('../policy/policy.ts')
  const loading = onInterrupt()
  let policy: Policy | undefined
  let searching: OpenedSearch | null = null
  try {
    const { device, dtype, threads } = flags
    policy = await Policy.load(flags.policy, { device, dtype, threads, signal: loading.signal })
    searching = await openSearch(flags, loading.signal)
    loading.dispose()
    await converse(policy, searching!.search, flags)
  } finally {
    loading.dispose()
    await searching?.provider.close?.()
    await policy?.dispose()
  }
}

async function converse(policy: Policy, search: Search, flags: ChatFlags): Promise<void> {
  const { loadPromptTemplate } = await import('../rollout/prompts.ts')
  const own = flags.search === 'self' ? 'self-search' : 'search'
  const template = await loadPromptTemplate(flags.promptTemplate ?? own)
  const { maxNewTokens, history } = flags
  const conversation = new Conversation(policy, { template, maxNewTokens, remembers: history })
  const isTerminal = process.stdin.isTTY === true
  const paint = painterFor(process.stdout)
  const seed = flags.seed ?? randomInt(2 ** 47)
  const interrupts = new Interrupts()
  let count = 0
  try {
    for await (const question of readQuestions({ isTerminal, onInterrupt: () => interrupts.take() })) {
      if (isTerminal) interrupts.reset()
      const signal = interrupts.begin()
      const job = { policy, search, conversation, flags, paint, question, seed: seed + count++, signal }
      await answer(job)
      interrupts.end()
    }
  } finally {
    interrupts.dispose()
  }
}

interface Job {
  policy: Policy
  search: Search
  conversation: Conversation
  flags: ChatFlags
  paint: Painter
  question: string
  seed: number
  signal: AbortSignal
}

/** One answer as it is written. What goes wrong with it is told, and the next question is taken. */
async function answer({ policy, search, conversation, flags, paint, question, seed, signal }: Job) {
  const { answerPrompt } = await import('../rollout/answer-prompt.ts')
  const { temperature, topP, topK, minP, maxNewTokens } = flags
  const painter = new BlockPainter(paint, { onLines: process.stdout.isTTY === true })
  try {
    const { tokens, forgotten } = conversation.ask(question)
    if (forgotten > 0) note(`(the context is full: ${forgotten} earlier questions were left out)`)
    const asked = { id: '', question, goldenAnswers: [], fields: {} }
    const [row] = await answerPrompt(policy, tokens, asked, {
      ...{ search, temperature, topP, topK, minP, maxNewTokens, seed, signal },
      onToken: (_, { text }) => process.stdout.write(painter.push(text)),
    })
    process.stdout.write(`${painter.end()}\n`)
    conversation.remember(question, row!.pieces.join(''))
    tellSearches(row!)
  } catch (error) {
    process.stdout.write(`${painter.end()}\n`)
    if (signal.aborted) return note('(stopped)')
    if (!(error instanceof SsrlError)) throw error
    note(`error ${error.code}: ${error.message}`)
    process.exitCode = 1
  }
}

function tellSearches({ searches, finishReason }: WrittenRow): void {
  for (const { query, outcome, provider, documents, latency, failure } of searches) {
    if (outcome === 'documents')
      note(
        `(${provider} answered ${JSON.stringify(query)} with ${documents} documents in ${latency.toFixed(0)} ms)`,
      )
    if (outcome === 'failure') note(`(the search for ${JSON.stringify(query)} failed: ${failure!.message})`)
  }
  if (finishReason === 'length') note('(no room is left: --max-new-tokens or the context ended this answer)')
}

/** Ctrl-C: the first stops the answer under way, the second leaves. A question from the terminal begins anew. */
class Interrupts {
  #count = 0
  #answer: AbortController | null = null
  readonly #handler = () => {
    if (this.take()) process.exit(130)
  }

  constructor() {
    process.on('SIGINT', this.#handler)
  }

  /** Counts one; true where it is time to leave. */
  take(): boolean {
    this.#count += 1
    if (this.#count > 1) return true
    if (this.#answer) this.#answer.abort(new Interrupted())
    else note('\nCtrl-C once more to leave')
    return false
  }

  reset(): void {
    this.#count = 0
  }

  begin(): AbortSignal {
    this.#answer = new AbortController()
    return this.#answer.signal
  }

  end(): void {
    this.#answer = null
  }

  dispose(): void {
    process.off('SIGINT', this.#handler)
  }
}
