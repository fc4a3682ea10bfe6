/** Examples for supervised fine-tuning. */
import { SsrlError } from '../errors.ts'
import { describeType, type Row, readRows } from './rows.ts'

export interface ChatMessage {
  role: string
  content: string
}

/**
 * What is trained on. `completion`: the completion after the prompt. `messages`: the assistant's turns. `text`: all of
 * it. `question`: the completion after the self-search prompt of the question, which is how stored trajectories read.
 */
export type Example =
  | { kind: 'completion'; line: number; prompt: string | ChatMessage[]; completion: string }
  | { kind: 'messages'; line: number; messages: ChatMessage[] }
  | { kind: 'text'; line: number; text: string }
  | { kind: 'question'; line: number; question: string; completion: string }

export interface ExampleReport {
  path: string
  rows: number
  kept: number
  /** Lines left out because nothing in them can be trained on. */
  empty: number[]
}

export interface LoadExamplesOptions {
  onReport?: (report: ExampleReport) => void
  signal?: AbortSignal
}

type Fields = Record<string, unknown>

/**
 * Reads examples from JSONL or parquet, each row in one of four layouts: `prompt` (text or messages) with `completion`
 * (text or one assistant message) · `messages` with an assistant's turn · `question` with `completion`, `response` or
 * `text`, as trajectories are stored · `text`. Rows whose completion is empty are left out and reported.
 * Throws `ERR_DATASET` with file and line for any other row, and when no example is left.
 */
export async function loadExamples(path: string, options: LoadExamplesOptions = {}): Promise<Example[]> {
  const examples: Example[] = []
  const empty: number[] = []
  let rows = 0
  for await (const row of readRows(path, options.signal)) {
    rows++
    const example = readExample(row, `${path}:${row.line}`)
    if (isEmpty(example)) empty.push(row.line)
    else examples.push(example)
  }
  if (examples.length === 0) {
    throw new SsrlError(
      'ERR_DATASET',
      `Expected examples in ${path} but none of its ${rows} rows has a text to train on`,
    )
  }
  options.onReport?.({ path, rows, kept: examples.length, empty })
  return examples
}

function readExample({ line, fields }: Row, where: string): Example {
  if (has(fields, 'messages'))
    return { kind: 'messages', line, messages: readMessages(fields.messages, where, 'messages') }
  if (has(fields, 'prompt') && has(fields, 'completion')) {
    return {
      kind: 'completion',
      line,
      prompt: readPrompt(fields, where),
      completion: readCompletion(fields, where),
    }
  }
  const written = ['completion', 'response', 'text'].find((name) => has(fields, name))
  if (has(fields, 'question') && written) {
    const question = readText(fields, 'question', where)
    return { kind: 'question', line, question, completion: readText(fields, written, where) }
  }
  if (has(fields, 'text')) return { kind: 'text', line, text: readText(fields, 'text', where) }
  throw new SsrlError(
    'ERR_DATASET',
    `${where}: expected the fields prompt and completion, or messages, or question and completion, or text, but received ${Object.keys(fields).join(', ') || 'none'}`,
  )
}

function has(fields: Fields, name: string): boolean {
  return Object.hasOwn(fields, name) && fields[name] !== null && fields[name] !== undefined
}

function readText(fields: Fields, name: string, where: string): string {
  const value = fields[name]
  if (typeof value === 'string') return value
  throw new SsrlError(
    'ERR_DATASET',
    `${where}: expected ${name} to be text but received ${describeType(value)}`,
  )
}

function readPrompt(fields: Fields, where: string): string | ChatMessage[] {
  return typeof fields.prompt === 'string' ? fields.prompt : readMessages(fields.prompt, where, 'prompt')
}

function readCompletion(fields: Fields, where: string): string {
  if (typeof fields.completion === 'string') return fields.completion
  const messages = readMessages(fields.completion, where, 'completion')
  if (messages.length === 1 && messages[0]!.role === 'assistant') return messages[0]!.content
  throw new SsrlError(
    'ERR_DATASET',
    `${where}: expected completion to be text or one message of the assistant but received ${messages.length} messages`,
  )
}

function readMessages(value: unknown, where: string, name: string): ChatMessage[] {
  if (!Array.isArray(value) || value.length === 0) {
    throw new SsrlError(
      'ERR_DATASET',
      `${where}: expected ${name} to be a list of { role, content } but received ${describeType(value)}`,
    )
  }
  return value.map((message, index) => {
    const { role, content } = (message ?? {}) as Fields
    if (typeof role === 'string' && typeof content === 'string') return { role, content }
    throw new SsrlError(
      'ERR_DATASET',
      `${where}: expected ${name}[${index}] to have role and content as text`,
    )
  })
}

function isEmpty(example: Example): boolean {
  if (example.kind === 'text') return example.text.trim() === ''
  if (example.kind !== 'messages') return example.completion.trim() === ''
  return !example.messages.some(({ role, content }) => role === 'assistant' && content.trim() !== '')
}
