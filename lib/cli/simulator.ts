import { writeFile } from 'node:fs/promises'
import { Command, Option } from 'commander'
import { SsrlError } from '../errors.ts'
import { Progress } from '../logging/progress.ts'
import { providerSpelling } from '../search/provider-spelling.ts'
import type { DocumentLayout } from '../search/sanitize.ts'
import { addPolicyOptions, integer, note, number, type PolicyOptions, printJson } from './common.ts'
import { onInterrupt } from './interrupt.ts'

interface SimulatorFlags extends PolicyOptions {
  train: string
  search: string
  output: string
  n: number
  temperature: number
  maxNewTokens: number
  topK: number
  maxDocumentTokens: number
  maxSearches: number
  documentLayout: DocumentLayout
  leakAnswer?: boolean
  promptTemplate?: string
  limit?: number
  seed: number
  json?: boolean
}

/** `ssrl simulator`: examples that tune a policy to play the search engine. */
export function simulatorCommand(): Command {
  const command = new Command('simulator').description(
    'Make examples that tune a model to play the search engine (ZeroSearch): a policy answers training questions with real ' +
      'searches, and what was found is labelled useful or noisy by whether the right answer followed. Then ' +
      '`ssrl sft --policy MODEL --data FILE --output SIMULATOR` and `ssrl train --search-provider policy:SIMULATOR/policy`.',
  )
  return addPolicyOptions(command)
    .requiredOption('--train <file>', 'training questions (JSONL or parquet)')
    .requiredOption(
      '--search <provider>',
      `who answers the searches: ${providerSpelling.replace('self, ', '')}`,
    )
    .requiredOption('-o, --output <file>', 'examples, as JSONL that `ssrl sft --data` reads')
    .option('-n <count>', 'trajectories per question', integer({ min: 1 }), 4)
    .option('--temperature <t>', 'of sampling', number({ above: 0 }), 1)
    .option('--max-new-tokens <n>', 'largest completion, documents counted', integer({ min: 1 }), 512)
    .option('--top-k <k>', 'documents for a query', integer({ min: 1 }), 5)
    .option('--max-document-tokens <n>', 'tokens of one document in an example', integer({ min: 1 }), 60)
    .option('--max-searches <n>', 'searches of one trajectory', integer({ min: 1 }), 4)
    .addOption(
      new Option('--document-layout <layout>', 'how the policy is shown documents')
        .choices(['numbered', 'plain'])
        .default('numbered'),
    )
    .option(
      '--leak-answer',
      'put question and golden answers into the prompts, as --leak-answer of train does',
    )
    .option('--prompt-template <name>', 'a built-in name, or a file with {question}')
    .option('--limit <n>', 'use the first so many questions', integer({ min: 1 }))
    .option('--seed <n>', 'the same seed gives the same examples', integer({ min: 0 }), 0)
    .option('--json', 'print the statistics as JSON')
    .action(makeExamples)
}

async function makeExamples(flags: SimulatorFlags): Promise<void> {
  const { createProvider } = await import('../search/create-provider.ts')
  const { simulatorExamples } = await import('../training/simulator-data.ts')
  const { loadPromptTemplate } = await import('../rollout/prompts.ts')
  const { Policy } = await import('../policy/policy.ts')
  const { readQuestionFile } = await import('./questions.ts')
  const { train, search, promptTemplate: template, device, dtype, threads, limit, ...rest } = flags
  if (search === 'self') {
    throw new SsrlError(
      'ERR_INVALID_ARG',
      'Expected a real provider for --search, but self writes what it knows',
    )
  }
  const promptTemplate = template === undefined ? undefined : await loadPromptTemplate(template)
  const questions = (await readQuestionFile(train)).slice(0, limit)
  const interrupt = onInterrupt()
  const { signal } = interrupt
  const progress = new Progress({ total: questions.length, label: 'question', interval: 5000 })
  const provider = await createProvider(search, { signal })
  const policy = await Policy.load(flags.policy, { device, dtype, threads, signal })
  try {
    const { examples, statistics } = await simulatorExamples({
      ...rest,
      layout: rest.documentLayout,
      policy,
      provider,
      questions,
      promptTemplate,
      signal,
      onProgress: (done) => progress.update(done),
    })
    progress.finish()
    await writeFile(flags.output, examples.map((line) => `${JSON.stringify(line)}\n`).join(''))
    if (flags.json) printJson(statistics)
    const { found, useful, noisy, right, trajectories } = statistics
    note(`${trajectories} trajectories, ${right} of them right; ${found} searches found something`)
    note(`wrote ${examples.length} examples to ${flags.output}: ${useful} useful, ${noisy} noisy`)
  } finally {
    interrupt.dispose()
    await provider.close?.()
    await policy.dispose()
  }
}
