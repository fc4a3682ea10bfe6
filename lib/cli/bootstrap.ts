import { writeFile } from 'node:fs/promises'
import { Command } from 'commander'
import type { Question } from '../data/questions.ts'
import { SsrlError } from '../errors.ts'
import { Progress } from '../logging/progress.ts'
import { providerSpelling } from '../search/provider-spelling.ts'
import type { BootstrapShot, Demonstration } from '../training/bootstrap.ts'
import { addPolicyOptions, integer, note, number, type PolicyOptions, printJson } from './common.ts'
import { onInterrupt } from './interrupt.ts'
import { addDocumentOptions, type SearchFlags } from './search-options.ts'

type DocumentFlags = Pick<SearchFlags, 'search' | 'searchTopK' | 'maxDocumentTokens' | 'documentLayout'>

interface BootstrapFlags extends PolicyOptions, DocumentFlags {
  train: string
  shots?: string
  template?: boolean
  output: string
  n: number
  temperature: number
  topP: number
  maxNewTokens: number
  fillTo: number
  perQuestion: number
  limit?: number
  seed: number
  json?: boolean
}

/** `ssrl bootstrap`: demonstrations for a cold start, from training questions only. */
export function bootstrapCommand(): Command {
  const command = new Command('bootstrap').description(
    'Make demonstrations for a cold start: few-shot samples of the policy itself whose strict format holds and whose ' +
      'answer is right, or, with --template, texts written from question and answer; with --search the template is ' +
      'written around what a real search finds, for training with that search. Give training questions only.',
  )
  addPolicyOptions(command, { required: false })
    .requiredOption('--train <file>', 'training questions (JSONL or parquet)')
    .requiredOption('-o, --output <file>', 'demonstrations, as JSONL that `ssrl sft --data` reads')
    .option('--shots <file>', 'worked examples: "question" and "completion" per line')
    .option('--template', 'write demonstrations by a template instead of sampling; needs no policy')
    .option(
      '--search <provider>',
      `with --template: who answers the searches, for --policy's tokenizer: ${providerSpelling.replace('self, ', '')}`,
    )
  return addDocumentOptions(command)
    .option('-n <count>', 'samples per question', integer({ min: 1 }), 4)
    .option('--temperature <t>', 'of sampling', number({ above: 0 }), 0.7)
    .option('--top-p <p>', 'of sampling', number({ above: 0, max: 1 }), 0.95)
    .option('--max-new-tokens <n>', 'largest completion', integer({ min: 1 }), 192)
    .option('--per-question <n>', 'demonstrations kept of one question', integer({ min: 1 }), 1)
    .option(
      '--fill-to <n>',
      'too few right ones: fill up with well-formed wrong ones',
      integer({ min: 0 }),
      0,
    )
    .option('--limit <n>', 'use the first so many questions', integer({ min: 1 }))
    .option('--seed <n>', 'the same seed gives the same demonstrations', integer({ min: 0 }), 0)
    .option('--json', 'print the statistics as JSON')
    .action(async (flags: BootstrapFlags) => {
      const { readQuestionFile } = await import('./questions.ts')
      const questions = (await readQuestionFile(flags.train)).slice(0, flags.limit)
      const { demonstrations, statistics } = await make(questions, flags)
      if (demonstrations.length === 0) {
        throw new SsrlError(
          'ERR_DATASET',
          flags.search === undefined
            ? 'No sample was well-formed and right: try more samples (-n), other shots, --fill-to, or --template'
            : 'No search found a golden answer: try a larger --search-top-k or --max-document-tokens, or other questions',
        )
      }
      await writeFile(flags.output, demonstrations.map((line) => `${JSON.stringify(line)}\n`).join(''))
      if (flags.json) printJson(statistics)
      note(`wrote ${demonstrations.length} demonstrations to ${flags.output}`)
    })
}

async function make(
  questions: Question[],
  flags: BootstrapFlags,
): Promise<{ demonstrations: Demonstration[]; statistics: object }> {
  const { bootstrapFromSamples, bootstrapFromTemplate } = await import('../training/bootstrap.ts')
  if (flags.search !== undefined) return makeFromSearches(questions, flags, flags.search)
  const beside = (['searchTopK', 'maxDocumentTokens', 'documentLayout'] as const).find(
    (name) => flags[name] !== undefined,
  )
  if (beside !== undefined) throw new SsrlError('ERR_INVALID_ARG', `Expected --search beside ${beside}`)
  if (flags.template) {
    const demonstrations = bootstrapFromTemplate(questions, { seed: flags.seed })
    return { demonstrations, statistics: { questions: questions.length, kept: demonstrations.length } }
  }
  const shots = await readShots(wanted(flags.shots, '--shots or --template'))
  const { Policy } = await import('../policy/policy.ts')
  const { device, dtype, threads } = flags
  const policy = await Policy.load(wanted(flags.policy, '--policy beside --shots'), {
    device,
    dtype,
    threads,
  })
  const interrupt = onInterrupt()
  const progress = new Progress({ total: questions.length, label: 'question', interval: 5000 })
  try {
    const result = await bootstrapFromSamples({
      ...flags,
      policy,
      questions,
      shots,
      signal: interrupt.signal,
      onProgress: (done) => progress.update(done),
    })
    progress.finish()
    const { samples, wellFormed, correct, kept } = result.statistics
    note(`${samples} samples: ${wellFormed} well-formed, ${correct} of these right; ${kept} kept`)
    return result
  } finally {
    interrupt.dispose()
    await policy.dispose()
  }
}

/** Documents are cut as the policy's tokenizer does it; its weights are not needed. */
async function makeFromSearches(questions: Question[], flags: BootstrapFlags, search: string) {
  if (!flags.template) throw new SsrlError('ERR_INVALID_ARG', 'Expected --template beside --search')
  if (search === 'self') {
    throw new SsrlError(
      'ERR_INVALID_ARG',
      'Expected a real provider for --search; without it the template writes the information itself',
    )
  }
  const { createProvider } = await import('../search/create-provider.ts')
  const { bootstrapFromSearches } = await import('../training/bootstrap-searches.ts')
  const { describePolicy } = await import('../policy/load.ts')
  const source = wanted(flags.policy, '--policy beside --search: its tokenizer cuts documents')
  const interrupt = onInterrupt()
  const { signal } = interrupt
  try {
    const { tokenizer } = await describePolicy(source, { signal })
    if (!tokenizer)
      throw new SsrlError('ERR_TOKENIZER', `Expected a policy with a tokenizer: ${source} has none`)
    const provider = await createProvider(search, { signal })
    const progress = new Progress({ total: questions.length, label: 'question', interval: 5000 })
    try {
      const { seed, maxDocumentTokens, documentLayout: layout, searchTopK: topK } = flags
      const how = { seed, maxDocumentTokens, layout, topK, signal }
      const onProgress = (done: number) => progress.update(done)
      const made = await bootstrapFromSearches({ ...how, questions, provider, tokenizer, onProgress })
      progress.finish()
      const { answered, failed, kept } = made.statistics
      note(`${answered} searches answered, ${failed} failed; ${kept} found a golden answer`)
      return made
    } finally {
      await provider.close?.()
    }
  } finally {
    interrupt.dispose()
  }
}

function wanted<T>(value: T | undefined, flag: string): T {
  if (value !== undefined) return value
  throw new SsrlError('ERR_INVALID_ARG', `Expected ${flag}`)
}

async function readShots(file: string): Promise<BootstrapShot[]> {
  const { loadExamples } = await import('../data/examples.ts')
  return (await loadExamples(file)).map((example) => {
    if (example.kind === 'question') return { question: example.question, completion: example.completion }
    throw new SsrlError('ERR_DATASET', `${file}:${example.line}: expected "question" and "completion"`)
  })
}
