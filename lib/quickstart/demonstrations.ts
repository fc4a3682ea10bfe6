/**
 * What the small policy is pretrained on: fact sentences, and demonstrations that are bad on purpose, so that it knows
 * much and answers badly. Shares follow the recipe that was tried; the information in a demonstration is never false
 * of what was asked.
 */
import type { Random } from '../random.ts'
import {
  factSentence,
  queryText,
  type Relation,
  relations,
  statement,
  type World,
  type WorldQuestion,
} from './world.ts'

/** Shares of each kind of flaw. */
export interface DemonstrationNoise {
  direct: number
  directRight: number
  wrongEntity: number
  wrongRelation: number
  stopAfterFirstHop: number
  wrongAnswer: number
  formDefect: number
}

export const defaultNoise: DemonstrationNoise = {
  direct: 0.65,
  directRight: 0.15,
  wrongEntity: 0.15,
  wrongRelation: 0.1,
  stopAfterFirstHop: 0.3,
  wrongAnswer: 0.15,
  formDefect: 0.35,
}

interface Block {
  tag: 'think' | 'search' | 'information' | 'answer'
  text: string
}

const block = (tag: Block['tag'], text: string): Block => ({ tag, text })

/** The prompt of the small world: plain text, since its policy has no chat template. */
export const worldPromptTemplate = 'Question: {question}\n'

/** One demonstration with fresh noise; prompt and completion, the completion ending in `</answer>` when it is whole. */
export function demonstration(
  random: Random,
  world: World,
  question: WorldQuestion,
  noise: DemonstrationNoise = defaultNoise,
): { prompt: string; completion: string } {
  const blocks = random.chance(noise.direct)
    ? directAnswer(random, world, question, noise)
    : searchedAnswer(random, world, question, noise)
  const completion = random.chance(noise.formDefect) ? breakForm(random, blocks) : render(blocks)
  return { prompt: worldPromptTemplate.replace('{question}', question.question), completion }
}

/** One fixed phrase: two would split their probability, and greedy decoding would search before any training. */
export const directThought = 'I can answer this at once.'

function directAnswer(
  random: Random,
  world: World,
  question: WorldQuestion,
  noise: DemonstrationNoise,
): Block[] {
  const type = question.hops.at(-1)!.to
  const answer = random.chance(noise.directRight)
    ? question.golden_answers[0]!
    : random.choice(world.entities[type])
  return [block('think', directThought), block('answer', answer)]
}

function searchedAnswer(
  random: Random,
  world: World,
  question: WorldQuestion,
  noise: DemonstrationNoise,
): Block[] {
  const blocks: Block[] = []
  let subject = question.subject
  const hops = question.hops.length > 1 && random.chance(noise.stopAfterFirstHop) ? 1 : question.hops.length
  for (let i = 0; i < hops; i++) {
    const asked = flawedHop(random, world, subject, question.hops[i]!, noise)
    const found = world.lookup(asked.subject, asked.relation)!
    blocks.push(
      block('think', `I need ${asked.relation.need} ${asked.subject}.`),
      block('search', queryText(asked.subject, asked.relation)),
      block('information', statement(random, asked.subject, asked.relation, found)),
    )
    subject = found
    if (i + 1 < hops && typeOf(world, found) !== question.hops[i + 1]!.from) break
  }
  const wanted = question.hops.at(-1)!.to
  const answer = random.chance(noise.wrongAnswer) ? random.choice(world.entities[wanted]) : subject
  blocks.push(block('think', 'Now I know the answer.'), block('answer', answer))
  return blocks
}

/** The hop that is really asked: entity or relation redrawn now and then, always one that has a fact. */
function flawedHop(
  random: Random,
  world: World,
  subject: string,
  relation: Relation,
  noise: DemonstrationNoise,
) {
  const entity = random.chance(noise.wrongEntity) ? random.choice(world.entities[relation.from]) : subject
  const others = Object.values(relations).filter((other) => other.from === relation.from)
  return { subject: entity, relation: random.chance(noise.wrongRelation) ? random.choice(others) : relation }
}

function typeOf(world: World, entity: string): string | undefined {
  return Object.entries(world.entities).find(([, names]) => names.includes(entity))?.[0]
}

const render = (blocks: readonly Block[]): string =>
  blocks.map(({ tag, text }) => `<${tag}>${text}</${tag}>`).join('')

/** One defect of form, of eight kinds. */
function breakForm(random: Random, blocks: readonly Block[]): string {
  const parts = blocks.map(({ tag, text }) => `<${tag}>${text}</${tag}>`)
  const i = random.integer(blocks.length)
  const { tag, text } = blocks[i]!
  const others = (['think', 'search', 'information', 'answer'] as const).filter((other) => other !== tag)
  switch (random.integer(8)) {
    case 0: // not closed
      parts[i] = `<${tag}>${text}`
      break
    case 1: // not opened
      parts[i] = `${text}</${tag}>`
      break
    case 2: // the wrong closer
      parts[i] = `<${tag}>${text}</${random.choice(others)}>`
      break
    case 3: // half a tag
      parts[i] = `<${tag}>${text}</${tag}`
      break
    case 4: // junk between blocks
      parts[i] = `${parts[i]} so then `
      break
    case 5: // no first thought
      parts.shift()
      break
    case 6: // no answer
      parts.pop()
      break
    default: // the answer is not closed
      parts[parts.length - 1] = `<answer>${blocks.at(-1)!.text}`
  }
  return parts.join('')
}

/** All facts once, in random order and wording: the text that a pass over the world's knowledge consists of. */
export function factText(random: Random, world: World): string {
  return random
    .shuffle(world.facts)
    .map((fact) => factSentence(random, fact))
    .join('\n')
}
