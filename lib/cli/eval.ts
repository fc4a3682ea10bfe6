import { Command, Option } from 'commander'
import { nameOfDataset, type Question } from '../data/questions.ts'
import { SsrlError } from '../errors.ts'
import type { Endpoint } from '../evaluation/endpoint.ts'
import type { MethodName, Shot } from '../evaluation/methods.ts'
import { Progress } from '../logging/progress.ts'
import { addPolicyOptions, integer, note, number, type PolicyOptions, printJson } from './common.ts'
import { onInterrupt } from './interrupt.ts'
import { printSummary } from './score.ts'
import { addSearchOptions, openSearch, type SearchFlags, withoutSearch } from './search-options.ts'

interface EvalFlags extends PolicyOptions, SearchFlags {
  endpoint?: string
  model?: string
  data: string[]
  method: MethodName
  n: number
  temperature?: number
  topP: number
  topK: number
  minP: number
  maxNewTokens: number
  limit?: number
  seed: number
  promptTemplate?: string
  shots?: string
  format: 'strict' | 'reference'
  output?: string
  json?: boolean
}

const methods = 'self-search|self-search-multiturn|self-search-reflect|direct|cot|few-shot|rag|search'

/** `ssrl eval`: asks the questions of some files and scores the answers. */
export function evalCommand(): Command {
  const command = new Command('eval').description(
    'Evaluate a policy or an OpenAI-compatible endpoint on question files.',
  )
  addPolicyOptions(command, { required: false })
    .option(
      '--endpoint <url>',
      'an OpenAI-compatible server instead, as http://localhost:8000/v1; OPENAI_API_KEY is sent',
    )
    .option('--model <name>', "the endpoint's model")
    .requiredOption('-d, --data <files...>', 'question files; each is a benchmark named by its file')
    .option(`--method <name>`, `${methods}`, 'self-search')
    .option('-n <count>', 'samples per question', integer({ min: 1 }), 1)
    .option('--temperature <t>', '0 is greedy (default: 0 for one sample, 1 for several)', number({ min: 0 }))
    .option(
      '--top-p <p>',
      'sample from the likeliest tokens that add up to p',
      number({ above: 0, max: 1 }),
      1,
    )
    .option('--top-k <k>', 'sample from the k likeliest tokens; 0 is all', integer({ min: 0 }), 0)
    .option(
      '--min-p <p>',
      'sample from tokens at least p times as likely as the likeliest',
      number({ min: 0, max: 1 }),
      0,
    )
    .option('--max-new-tokens <n>', 'largest completion', integer({ min: 1 }), 256)
    .option('--limit <n>', 'the first so many questions of each file', integer({ min: 1 }))
    .option('--seed <n>', 'of sampling and of the intervals', integer({ min: 0 }), 0)
    .option('--prompt-template <name>', 'for self-search: a built-in name, or a file with {question}')
    .option('--shots <file>', 'for few-shot: examples with question and golden_answers')
    .addOption(
      new Option('--format <mode>', 'rule of the format score')
        .choices(['strict', 'reference'])
        .default('strict'),
    )
    .option('-o, --output <folder>', 'write predictions.jsonl and summary.json here')
    .option('--json', 'print the summary as JSON')
    .action(runEvaluation)
  return addSearchOptions(command, 'for self-search: who answers the searches')
}

async function runEvaluation(flags: EvalFlags): Promise<void> {
  const { evaluate } = await import('../evaluation/evaluate.ts')
  const questions = await readBenchmarks(flags.data)
  const { endpoint, policy } = await openSource(flags)
  const searching = await openSearch(flags)
  const interrupt = onInterrupt()
  const progress = new Progress({ total: 1, label: 'question', interval: 5000 })
  try {
    const {
      promptTemplate,
      shots,
      policy: source,
      device,
      dtype,
      threads,
      data,
      json,
      endpoint: url,
      model,
      ...rest
    } = withoutSearch(flags)
    const { predictions, ...summary } = await evaluate({
      ...rest,
      policy,
      endpoint,
      questions,
      search: searching?.search,
      temperature: flags.temperature ?? (flags.n > 1 ? 1 : 0),
      promptTemplate: promptTemplate === undefined ? undefined : await readTemplate(promptTemplate),
      shots: shots === undefined ? undefined : await readShots(shots),
      about: {
        ...(policy ? { policy: source, dtype: policy.dtype } : {}),
        ...(searching ? { search: searching.provider.name } : {}),
        data,
      },
      signal: interrupt.signal,
      onProgress: (done, total) => progress.update(done, '', total),
    })
    progress.finish()
    if (json) printJson(summary)
    else printSummary(summary)
    if (flags.output !== undefined) note(`wrote predictions.jsonl and summary.json into ${flags.output}`)
  } finally {
    interrupt.dispose()
    await searching?.provider.close?.()
    await policy?.dispose()
  }
}

async function openSource({ endpoint: url, model, policy: source, device, dtype, threads }: EvalFlags) {
  if ((url === undefined) === (source === undefined)) {
    throw new SsrlError('ERR_INVALID_ARG', 'Expected --policy or --endpoint, one of the two')
  }
  if (url === undefined) {
    const { Policy } = await import('../policy/policy.ts')
    return { policy: await Policy.load(source!, { device, dtype, threads }) }
  }
  if (model === undefined) throw new SsrlError('ERR_INVALID_ARG', 'Expected --model with --endpoint')
  const endpoint: Endpoint = { url, model, apiKey: process.env.OPENAI_API_KEY }
  return { endpoint }
}

async function readBenchmarks(files: readonly string[]): Promise<Record<string, Question[]>> {
  const { readQuestionFile } = await import('./questions.ts')
  const benchmarks: Record<string, Question[]> = {}
  for (const file of files) {
    const name = nameOfDataset(file)
    if (name in benchmarks) {
      throw new SsrlError(
        'ERR_INVALID_ARG',
        `Expected files with different base names but two are named ${name}`,
      )
    }
    benchmarks[name] = await readQuestionFile(file)
  }
  return benchmarks
}

async function readTemplate(nameOrPath: string) {
  const { loadPromptTemplate } = await import('../rollout/prompts.ts')
  return loadPromptTemplate(nameOrPath)
}

async function readShots(file: string): Promise<Shot[]> {
  const { readQuestionFile } = await import('./questions.ts')
  return (await readQuestionFile(file)).map(({ question, goldenAnswers }) => ({
    question,
    answer: goldenAnswers[0]!,
  }))
}
