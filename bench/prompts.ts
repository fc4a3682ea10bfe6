import { readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import type { Tokenizer } from '../lib/policy/tokenizer.ts'

export interface BenchQuestion {
  question: string
  answers: string[]
}

const file = fileURLToPath(new URL('../../shared/data/opentriviaqa.test.jsonl', import.meta.url))

/** For a checkout without the shared data. */
const fixed: [string, string][] = [
  ['Which planet of the solar system has the shortest year?', 'Mercury'],
  ['What is the longest river of South America?', 'The Amazon'],
  ['Which metal is liquid at room temperature?', 'Mercury'],
  ['Who wrote the tragedy in which the ghost of a king walks the walls of Elsinore?', 'Shakespeare'],
  ['In which city does the river Vltava pass under a bridge named after a king?', 'Prague'],
  ['How many strings does a violin have?', 'Four'],
  ['Which gas do plants take from the air when light falls on their leaves?', 'Carbon dioxide'],
  ['What is the capital of the country that lies between Spain and the Atlantic?', 'Lisbon'],
  ['Which bird lays the largest eggs of all?', 'The ostrich'],
  ['Which sea separates Sweden from Finland?', 'The Baltic'],
  ['What do we call a triangle whose three sides are equally long?', 'Equilateral'],
  ['Which organ of the human body makes insulin?', 'The pancreas'],
]

export async function readQuestions(): Promise<BenchQuestion[]> {
  const text = await readFile(file, 'utf8').catch(() => null)
  if (text === null) return fixed.map(([question, answer]) => ({ question, answers: [answer] }))
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as { question: string; golden_answers: string[] })
    .map(({ question, golden_answers }) => ({ question, answers: golden_answers }))
}

const lineOf = ({ question, answers }: BenchQuestion) => `Question: ${question}\nAnswer: ${answers[0]}\n`

/**
 * Prompts of exactly `length` tokens, each beginning with another question, whose text has the same ids when it is
 * encoded again.
 */
export function promptsOf(
  questions: readonly BenchQuestion[],
  tokenizer: Tokenizer,
  { count, length }: { count: number; length: number },
): { tokens: number[][]; texts: string[] } {
  const tokens: number[][] = []
  const texts: string[] = []
  for (let first = 0; tokens.length < count; first++) {
    if (first > 100 * count) throw new Error(`No text of ${length} tokens is encoded again as it was`)
    const ids = longText(questions, tokenizer, { first, length }).slice(0, length)
    const text = tokenizer.decode(Int32Array.from(ids))
    const again = tokenizer.encode(text)
    if (again.length !== length || ids.some((id, i) => id !== again[i])) continue
    tokens.push(ids)
    texts.push(text)
  }
  return { tokens, texts }
}

function longText(
  questions: readonly BenchQuestion[],
  tokenizer: Tokenizer,
  { first, length }: { first: number; length: number },
): number[] {
  let text = ''
  // A token is about 4 characters of English; where that is too few, the text grows on.
  for (let next = first * 7; ; next++) {
    text += lineOf(questions[next % questions.length]!)
    if (text.length < 5 * length) continue
    const ids = tokenizer.encode(text)
    if (ids.length > length) return [...ids]
  }
}
