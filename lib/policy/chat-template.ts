import { Environment, Interpreter, parse, tokenize } from '@huggingface/jinja'
import { SsrlError } from '../errors.ts'
import type { TextSegment, Tokenizer } from './tokenizer.ts'

/** One turn of a conversation. */
export interface Message {
  role: string
  /** A string of a `user` or `tool` turn is untrusted, any other trusted; segments say it piece by piece. */
  content: string | TextSegment[]
}

/** Values that chat templates read; JSON. */
export type TemplateVariables = Record<string, unknown>

export interface ChatOptions {
  /** end with what opens the assistant's turn; default true */
  addGenerationPrompt?: boolean
  bosToken?: string
  eosToken?: string
  /** override or add to `defaultTemplateVariables` */
  variables?: TemplateVariables
}

/**
 * Fixed values, so that a prompt is the same tomorrow: Llama 3's template otherwise writes today's date.
 * `strftime_now` formats `date_string` too.
 */
export const defaultTemplateVariables: Readonly<TemplateVariables> = {
  date_string: '26 Jul 2024',
  enable_thinking: true,
}

/** What a template is rendered with, to be recorded with a run. */
export function templateVariables(overrides: TemplateVariables = {}): TemplateVariables {
  return { ...defaultTemplateVariables, ...overrides }
}

/**
 * Renders a conversation, keeping apart what the template and trusted turns wrote and what is untrusted.
 *
 * The template runs once with markers in place of untrusted text, which fixes its structure (untrusted text steers no
 * branch), and once with the real texts, which shows what it makes of them (`| trim`, …); where that does not tell, once
 * for each of them.
 *
 * @param template Jinja source
 * @throws SsrlError ERR_TOKENIZER when the template can't render the messages or does what can't be traced to a segment
 */
export function renderChat(
  template: string,
  messages: readonly Message[],
  options: ChatOptions = {},
): TextSegment[] {
  const turns = messages.map(toTurn)
  const texts = turns.flatMap((turn) =>
    turn.segments.filter((segment) => segment.untrusted).map(({ text }) => text),
  )
  const markers = makeMarkers(template, turns, texts.length)
  const render = (fill: readonly string[]) => renderTurns(template, turns, fill, options)
  const structure = render(markers)
  const traceEach = () =>
    texts.map((text, i) => {
      const marker = markers[i]!
      const fill = markers.map((other, j) => (i === j ? text : other))
      return traceSegment(structure, marker, text, () => render(fill))
    })
  const transformed = traceTogether(structure, markers, texts, render) ?? traceEach()
  return splitAtMarkers(structure, markers, transformed)
}

/** Text of rendered segments. */
export function segmentsText(segments: readonly TextSegment[]): string {
  return segments.map((segment) => segment.text).join('')
}

/**
 * A prompt's ids: messages through the model's chat template, which brings its own BOS; without a template, and for a
 * plain string, the text itself with BOS as the tokenizer says.
 */
export function encodePrompt(
  tokenizer: Tokenizer,
  prompt: string | readonly Message[] | readonly TextSegment[],
  options: Omit<ChatOptions, 'bosToken' | 'eosToken'> = {},
): Int32Array {
  if (typeof prompt === 'string') return tokenizer.encode(prompt)
  if (!Array.isArray(prompt) || prompt.length === 0) {
    throw new SsrlError(
      'ERR_INVALID_ARG',
      'Expected a string or a list of messages with at least one entry for prompt',
    )
  }
  if (!isMessages(prompt)) return tokenizer.encodeSegments(prompt)
  if (tokenizer.chatTemplate === null) return tokenizer.encodeSegments(plainText(prompt))
  const { bosToken, eosToken } = tokenizer
  const segments = renderChat(tokenizer.chatTemplate, prompt, { ...options, bosToken, eosToken })
  return tokenizer.encodeSegments(segments, { addSpecialTokens: false })
}

function isMessages(prompt: readonly (Message | TextSegment)[]): prompt is readonly Message[] {
  return 'role' in prompt[0]!
}

/** Turns of a model that knows none: their texts, with a blank line between. */
function plainText(messages: readonly Message[]): TextSegment[] {
  const turns = messages.map((message) => toTurn(message).segments)
  return turns.flatMap((segments, i) => (i === 0 ? segments : [{ text: '\n\n' }, ...segments]))
}

interface Turn {
  role: string
  segments: TextSegment[]
}

function toTurn(message: Message): Turn {
  const { role, content } = message ?? {}
  const isText = typeof content === 'string'
  const isSegments = Array.isArray(content) && content.every((segment) => typeof segment?.text === 'string')
  if (typeof role !== 'string' || !(isText || isSegments)) {
    throw new SsrlError(
      'ERR_INVALID_ARG',
      `Expected { role: string, content: string } for a message but received ${JSON.stringify(message)?.slice(0, 80)}`,
    )
  }
  if (!isText) return { role, segments: content as TextSegment[] }
  return { role, segments: [{ text: content, untrusted: role === 'user' || role === 'tool' }] }
}

/** Letters and digits only, so that a template's escapes and filters leave them alone; none occurs in any text. */
function makeMarkers(template: string, turns: readonly Turn[], count: number): string[] {
  const everything = template + JSON.stringify(turns)
  let base = 'q7untrustedz'
  while (everything.includes(base)) base += 'q7z'
  return Array.from({ length: count }, (_, i) => `${base}${i}x`)
}

function renderTurns(
  source: string,
  turns: readonly Turn[],
  fill: readonly string[],
  options: ChatOptions,
): string {
  let next = 0
  const messages = turns.map(({ role, segments }) => ({
    role,
    content: segments.map((segment) => (segment.untrusted ? fill[next++] : segment.text)).join(''),
  }))
  const variables = templateVariables(options.variables)
  const context: Record<string, unknown> = {
    ...variables,
    messages,
    add_generation_prompt: options.addGenerationPrompt ?? true,
    strftime_now: (format: string) => formatDate(parseDate(variables.date_string), format),
  }
  if (options.bosToken !== undefined) context.bos_token = options.bosToken
  if (options.eosToken !== undefined) context.eos_token = options.eosToken
  try {
    return runTemplate(compile(source), context)
  } catch (cause) {
    if (cause instanceof SsrlError) throw cause
    throw new SsrlError(
      'ERR_TOKENIZER',
      `The chat template can't render these messages: ${(cause as Error).message}`,
      {
        cause,
      },
    )
  }
}

type Program = ReturnType<typeof parse>
let compiled: { source: string; program: Program } | undefined

function compile(source: string): Program {
  // one run uses one template, rendered thousands of times
  if (compiled?.source !== source) {
    compiled = { source, program: parse(tokenize(source, { lstrip_blocks: true, trim_blocks: true })) }
  }
  return compiled.program
}

/** The library's own `Template.render` declares a `strftime_now` of today, which can't be overridden. */
function runTemplate(program: Program, context: Record<string, unknown>): string {
  const environment = new Environment()
  const globals = {
    ...{ true: true, True: true, false: false, False: false, none: null, None: null },
    range,
    raise_exception: (message: string) => {
      throw new Error(message)
    },
  }
  for (const [name, value] of Object.entries({ ...globals, ...context })) environment.set(name, value)
  return (new Interpreter(environment).run(program) as { value: string }).value
}

/** Python's range. */
function range(start: number, stop?: number, step = 1): number[] {
  const [from, to] = stop === undefined ? [0, start] : [start, stop]
  return Array.from({ length: Math.max(0, Math.ceil((to - from) / step)) }, (_, i) => from + i * step)
}

const transforms: ((text: string) => string)[] = [
  (text) => text,
  (text) => text.trim(),
  (text) => text.trimStart(),
  (text) => text.trimEnd(),
]

/** What the template makes of all untrusted texts where it treats them alike, which most do; else null. */
function traceTogether(
  structure: string,
  markers: readonly string[],
  texts: readonly string[],
  render: (fill: readonly string[]) => string,
): string[] | null {
  if (texts.length < 2) return null
  const rendered = render(texts)
  const fill = (candidates: readonly string[]) => {
    const segments = splitAtMarkers(structure, markers, candidates)
    return segments.map(({ text }) => text).join('')
  }
  for (const transform of transforms) {
    const candidates = texts.map(transform)
    if (fill(candidates) === rendered) return candidates
  }
  return null
}

/** What the template makes of one untrusted text. */
function traceSegment(structure: string, marker: string, text: string, render: () => string): string {
  const pieces = structure.split(marker)
  const rendered = render()
  if (pieces.length === 2) {
    const [before, after] = pieces as [string, string]
    const fits = rendered.length >= before.length + after.length
    if (fits && rendered.startsWith(before) && rendered.endsWith(after)) {
      const traced = rendered.slice(before.length, rendered.length - after.length)
      const isGrown = traced.includes(text.trim()) && !text.includes(traced)
      if (!isGrown) return traced
    }
    // the text changed the template's course: it stands in the course that any other text takes
    return text
  }
  const candidates = transforms.map((transform) => transform(text))
  const found = candidates.find((candidate) => pieces.join(candidate) === rendered)
  if (found !== undefined) return found
  if (pieces.length > 2) return text
  throw new SsrlError(
    'ERR_TOKENIZER',
    "The chat template rewrites a message's text, so that it can't be told from the template's own",
  )
}

function splitAtMarkers(
  structure: string,
  markers: readonly string[],
  texts: readonly string[],
): TextSegment[] {
  if (markers.length === 0) return [{ text: structure }]
  const indices = new Map(markers.map((marker, index) => [marker, index]))
  const stem = markers[0]!.slice(0, -'0x'.length)
  return structure
    .split(new RegExp(`(${stem}\\d+x)`))
    .map((part) => {
      const index = indices.get(part)
      return index === undefined ? { text: part } : { text: texts[index]!, untrusted: true }
    })
    .filter((segment) => segment.text !== '')
}

const months = ['January', 'February', 'March', 'April', 'May', 'June', 'July']
months.push('August', 'September', 'October', 'November', 'December')
const weekdays = ['Sunday', 'Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday', 'Saturday']

function parseDate(value: unknown): Date {
  const date = new Date(`${String(value)} UTC`)
  if (!Number.isNaN(date.getTime())) return date
  throw new SsrlError(
    'ERR_INVALID_ARG',
    `Expected a date such as '26 Jul 2024' for date_string but received ${value}`,
  )
}

/** Python's strftime, for the directives that templates use. */
function formatDate(date: Date, format: string): string {
  const pad = (value: number, length = 2) => String(value).padStart(length, '0')
  const month = months[date.getUTCMonth()]!
  const weekday = weekdays[date.getUTCDay()]!
  const directives: Record<string, string> = {
    d: pad(date.getUTCDate()),
    m: pad(date.getUTCMonth() + 1),
    Y: pad(date.getUTCFullYear(), 4),
    y: pad(date.getUTCFullYear() % 100),
    H: pad(date.getUTCHours()),
    I: pad(date.getUTCHours() % 12 || 12),
    M: pad(date.getUTCMinutes()),
    S: pad(date.getUTCSeconds()),
    p: date.getUTCHours() < 12 ? 'AM' : 'PM',
    b: month.slice(0, 3),
    B: month,
    a: weekday.slice(0, 3),
    A: weekday,
    '%': '%',
  }
  return format.replace(/%(-?)([a-zA-Z%])/g, (text, bare, letter) => {
    const value = directives[letter]
    if (value === undefined) throw new Error(`strftime_now: ${text} is not supported`)
    return bare ? value.replace(/^0+(?=\d)/, '') : value
  })
}
