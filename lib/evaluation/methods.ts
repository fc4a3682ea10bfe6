/** The ways of asking a question that an evaluation knows: wording, stop and where the answer stands. */
import { SsrlError } from '../errors.ts'
import type { TextSegment } from '../policy/tokenizer.ts'
import { parseCompletion, STOP_TAG } from '../rollout/grammar.ts'
import { type PromptTemplate, promptTemplates, renderPrompt } from '../rollout/prompts.ts'

export type MethodName = 'self-search' | 'direct' | 'cot' | 'few-shot'

export const methodNames: readonly MethodName[] = ['self-search', 'direct', 'cot', 'few-shot']

/** Named in the interface, but they need a search provider or several turns, which this version does not have. */
const unsupported = ['self-search-multiturn', 'self-search-reflect', 'rag', 'search']

/** A question with its answer, shown before the one that is asked. */
export interface Shot {
  question: string
  answer: string
}

export interface Method {
  name: MethodName
  /** `chat`: the user's turn of a conversation; `text`: a text that the model goes on with. */
  form: 'chat' | 'text'
  stop: readonly string[]
  prompt(question: string): TextSegment[]
  /** The answer in a completion; empty when there is none. */
  extract(completion: string): string
  /** Wording of the prompt, for the record. */
  wording: string
  /** The rule of `extract` in words. */
  rule: string
}

const DIRECT = `Answer the question at the end directly, in a few words, without reasoning or explanation. \
Write the answer inside <answer> and </answer>, for example <answer> Beijing </answer>.
Question: {question}
`

const CHAIN_OF_THOUGHT = `Answer the question at the end. First reason step by step inside <think> and </think>, \
then write the answer in a few words inside <answer> and </answer>, for example <answer> Beijing </answer>.
Question: {question}
`

const defaultShots: readonly Shot[] = [
  { question: 'Which planet of the solar system is called the Red Planet?', answer: 'Mars' },
  { question: 'Who wrote the novel in which Captain Ahab hunts a white whale?', answer: 'Herman Melville' },
  { question: 'What is the currency of the country whose capital is Tokyo?', answer: 'Yen' },
]

export interface MethodOptions {
  /** Replaces the wording of `self-search`. */
  promptTemplate?: PromptTemplate
  /** Replaces the three built-in examples of `few-shot`. */
  shots?: readonly Shot[]
  stopAtAnswer?: boolean
}

/**
 * @throws SsrlError `ERR_INVALID_CONFIG` for a method that is unknown or not supported, and for options of another one
 */
export function createMethod(name: string, options: MethodOptions = {}): Method {
  requireMethod(name)
  if (options.promptTemplate && name !== 'self-search') refuse('promptTemplate', 'self-search', name)
  if (options.shots && name !== 'few-shot') refuse('shots', 'few-shot', name)
  if (name === 'few-shot') return fewShot(options.shots ?? defaultShots)
  const builtIn = { 'self-search': promptTemplates['self-search'], direct: DIRECT, cot: CHAIN_OF_THOUGHT }
  const template = options.promptTemplate ?? { name, text: builtIn[name] }
  return {
    name,
    form: 'chat',
    stop: (options.stopAtAnswer ?? true) ? [STOP_TAG] : [],
    prompt: (question) => renderPrompt(question, template),
    extract: (completion) => parseCompletion(completion).answer ?? '',
    wording: template.text,
    rule: 'stripped content of the last <answer>…</answer> of the completion, empty if there is none',
  }
}

function fewShot(shots: readonly Shot[]): Method {
  const examples = shots
    .map(({ question, answer }) => `Question: ${question}\nAnswer: ${answer}\n\n`)
    .join('')
  return {
    name: 'few-shot',
    form: 'text',
    stop: ['\n'],
    prompt: (question) => [
      { text: `${examples}Question: ` },
      { text: question.trim(), untrusted: true },
      { text: '\nAnswer:' },
    ],
    extract: (completion) => completion.trimStart().split('\n', 1)[0]!.trim(),
    wording: `${examples}Question: {question}\nAnswer:`,
    rule: 'first line of the completion',
  }
}

function requireMethod(name: string): asserts name is MethodName {
  if ((methodNames as readonly string[]).includes(name)) return
  const known = `one of ${methodNames.join(', ')}`
  if (unsupported.includes(name)) {
    throw new SsrlError(
      'ERR_INVALID_CONFIG',
      `Expected ${known} for method: "${name}" needs a search provider or several turns, which this version does not have`,
    )
  }
  throw new SsrlError(
    'ERR_INVALID_CONFIG',
    `Expected ${known} for method but received ${JSON.stringify(name)}`,
  )
}

function refuse(option: string, owner: MethodName, name: MethodName): never {
  throw new SsrlError('ERR_INVALID_CONFIG', `${option} belongs to the method ${owner}, not to ${name}`)
}
