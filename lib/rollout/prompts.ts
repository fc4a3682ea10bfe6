/** The instruction that turns a question into the user's turn of a prompt. */
import { readFile } from 'node:fs/promises'
import { SsrlError } from '../errors.ts'

/**
 * Consecutive parts of one text. In text that is not trusted (a question, a document) no added token may arise when
 * the whole is encoded.
 */
export interface PromptSegment {
  text: string
  untrusted: boolean
}

export type PromptSegments = PromptSegment[]

export interface PromptTemplate {
  /** One of the built-in names, or the path that was given. Stored with each run. */
  name: string
  /** The wording, with `{question}` where the question stands. Stored with each run. */
  text: string
}

const PLACEHOLDER = '{question}'

const SELF_SEARCH = `Answer the question at the end. Whenever you have new information, first reason about it inside <think> and </think>. \
If your reasoning shows that you lack some knowledge, ask for it with <search> query </search>, and then write the best results for that query yourself, inside <information> and </information>. \
You may search as many times as you like. \
A question that needs several steps should be taken apart: search for one piece after the other. \
As soon as nothing more is needed, give the answer inside <answer> and </answer>, in a few words and without an explanation. \
For example: <answer> Beijing </answer>.
Question: {question}
`

const SELF_SEARCH_SHORT = `Reason inside <think> </think>. To look something up, write <search> query </search> and then, from memory, its results inside <information> </information>; \
reason again after each. End with the short answer inside <answer> </answer>, for example <answer> Beijing </answer>.
Question: {question}
`

const SEARCH = `Answer the question at the end. Whenever you have new information, first reason about it inside <think> and </think>. \
If your reasoning shows that you lack some knowledge, call a search engine with <search> query </search>: it returns the best results inside <information> and </information>. \
You may search as many times as you like. \
As soon as nothing more is needed, give the answer inside <answer> and </answer>, in a few words and without an explanation. \
For example: <answer> Beijing </answer>.
Question: {question}
`

/** Built-in wordings by name. `self-search` is the default, `search` the one for a real or simulated engine. */
export const promptTemplates = {
  'self-search': SELF_SEARCH,
  'self-search-short': SELF_SEARCH_SHORT,
  search: SEARCH,
  question: `${PLACEHOLDER}`,
} as const

export type PromptTemplateName = keyof typeof promptTemplates

export const DEFAULT_PROMPT_TEMPLATE: PromptTemplateName = 'self-search'

/**
 * A built-in template by name, or else the text file of that path. Throws `ERR_INVALID_CONFIG` when it is neither, or
 * does not contain `{question}` exactly once.
 */
export async function loadPromptTemplate(
  nameOrPath: string = DEFAULT_PROMPT_TEMPLATE,
): Promise<PromptTemplate> {
  if (Object.hasOwn(promptTemplates, nameOrPath)) {
    return { name: nameOrPath, text: promptTemplates[nameOrPath as PromptTemplateName] }
  }
  let text: string
  try {
    text = await readFile(nameOrPath, 'utf8')
  } catch (cause) {
    const names = Object.keys(promptTemplates).join(', ')
    throw new SsrlError(
      'ERR_INVALID_CONFIG',
      `Expected a prompt template (${names}, or a file that contains ${PLACEHOLDER}) but cannot read ${nameOrPath}`,
      { cause },
    )
  }
  const template = { name: nameOrPath, text }
  splitTemplate(template)
  return template
}

/**
 * The user's turn for one question, in parts: the template's wording is trusted, the question is not. The question
 * stands as it is, white space around it aside.
 */
export function renderPrompt(
  question: string,
  template: PromptTemplate | PromptTemplateName = DEFAULT_PROMPT_TEMPLATE,
): PromptSegments {
  const resolved = typeof template === 'string' ? { name: template, text: builtInText(template) } : template
  const [before, after] = splitTemplate(resolved)
  return [
    { text: before, untrusted: false },
    { text: question.trim(), untrusted: true },
    { text: after, untrusted: false },
  ].filter((segment) => segment.text !== '')
}

function builtInText(name: string): string {
  if (Object.hasOwn(promptTemplates, name)) return promptTemplates[name as PromptTemplateName]
  throw new SsrlError(
    'ERR_INVALID_CONFIG',
    `Expected one of the prompt templates ${Object.keys(promptTemplates).join(', ')} but received ${name}`,
  )
}

function splitTemplate(template: PromptTemplate): [string, string] {
  const parts = template.text.split(PLACEHOLDER)
  if (parts.length === 2) return [parts[0]!, parts[1]!]
  throw new SsrlError(
    'ERR_INVALID_CONFIG',
    `Expected the prompt template ${template.name} to contain ${PLACEHOLDER} exactly once but found it ${parts.length - 1} times`,
  )
}
