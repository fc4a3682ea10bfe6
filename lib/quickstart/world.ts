/**
 * The embedded small world: fictional people, places and companies whose facts are drawn from a seed, the questions
 * that can be asked about them in one or two hops, and the split into training and held-out questions.
 */
import { Random } from '../random.ts'
import {
  cityNames,
  companyNames,
  countryNames,
  currencies,
  firstNames,
  jobs,
  languages,
  lastNames,
} from './names.ts'

export type EntityType = 'person' | 'city' | 'country' | 'company' | 'language' | 'currency' | 'job'

/** A relation from entities of one type to one of another; `heading` is also the query that asks for it. */
export interface Relation {
  name: string
  from: EntityType
  to: EntityType
  /** "birthplace of": heading of a fact sentence and the words of a query. */
  heading: string
  /** Paraphrases of the fact, with {x} and {y}. */
  statements: readonly string[]
  /** Wordings of the one-hop question, with {x}. No wording serves two relations. */
  questions: readonly string[]
  /** What the policy says it needs, as in "I need {need} {x}." */
  need: string
}

export interface Fact {
  subject: string
  relation: Relation
  object: string
}

export interface WorldQuestion {
  id: string
  question: string
  golden_answers: string[]
  /** The entity that the question names. */
  subject: string
  hops: Relation[]
}

export interface World {
  facts: Fact[]
  entities: Record<EntityType, string[]>
  train: WorldQuestion[]
  heldOut: WorldQuestion[]
  /** The fact that a query asks for, or null. */
  lookup(subject: string, relation: Relation): string | null
}

const relation = (
  name: string,
  from: EntityType,
  to: EntityType,
  words: Pick<Relation, 'heading' | 'statements' | 'questions' | 'need'>,
): Relation => ({ name, from, to, ...words })

export const relations = {
  birthplace: relation('birthplace', 'person', 'city', {
    heading: 'birthplace of',
    statements: ['{x} was born in {y}.', 'The birthplace of {x} is {y}.', '{y} is where {x} was born.'],
    questions: ['Where was {x} born?', 'In which city was {x} born?'],
    need: 'the birthplace of',
  }),
  employer: relation('employer', 'person', 'company', {
    heading: 'employer of',
    statements: ['{x} works for {y}.', 'The employer of {x} is {y}.', '{y} employs {x}.'],
    questions: ['Which company does {x} work for?', 'Who is the employer of {x}?'],
    need: 'the employer of',
  }),
  job: relation('job', 'person', 'job', {
    heading: 'job of',
    statements: ['{x} is a {y} by trade.', 'The job of {x} is {y}.', '{x} earns a living as a {y}.'],
    questions: ['What is the job of {x}?', 'What does {x} do for a living?'],
    need: 'the job of',
  }),
  country: relation('country', 'city', 'country', {
    heading: 'country of',
    statements: ['{x} is a city in {y}.', 'The country of {x} is {y}.', '{x} lies in {y}.'],
    questions: ['In which country is {x}?', 'Which country does {x} belong to?'],
    need: 'the country of',
  }),
  capital: relation('capital', 'country', 'city', {
    heading: 'capital of',
    statements: ['{y} is the capital of {x}.', 'The capital of {x} is {y}.', '{x} is governed from {y}.'],
    questions: ['What is the capital of {x}?', 'Which city is the capital of {x}?'],
    need: 'the capital of',
  }),
  language: relation('language', 'country', 'language', {
    heading: 'language of',
    statements: ['People in {x} speak {y}.', 'The language of {x} is {y}.', '{y} is spoken in {x}.'],
    questions: ['Which language is spoken in {x}?', 'What do people in {x} speak?'],
    need: 'the language of',
  }),
  currency: relation('currency', 'country', 'currency', {
    heading: 'currency of',
    statements: [
      'People in {x} pay with the {y}.',
      'The currency of {x} is the {y}.',
      'The {y} is the money of {x}.',
    ],
    questions: ['What is the currency of {x}?', 'Which money is used in {x}?'],
    need: 'the currency of',
  }),
  headOffice: relation('headOffice', 'company', 'city', {
    heading: 'head office of',
    statements: [
      '{x} has its head office in {y}.',
      'The head office of {x} is in {y}.',
      '{y} is home to {x}.',
    ],
    questions: ['Where is the head office of {x}?', 'Which city hosts the head office of {x}?'],
    need: 'the head office of',
  }),
  founder: relation('founder', 'company', 'person', {
    heading: 'founder of',
    statements: ['{x} was founded by {y}.', 'The founder of {x} is {y}.', '{y} started {x}.'],
    questions: ['Who founded {x}?', 'Who is the founder of {x}?'],
    need: 'the founder of',
  }),
} as const satisfies Record<string, Relation>

/** Two-hop questions: the object of the first relation is the subject of the second. */
const twoHops: { hops: [Relation, Relation]; questions: [string, string] }[] = [
  {
    hops: [relations.birthplace, relations.country],
    questions: ['In which country was {x} born?', 'What is the native country of {x}?'],
  },
  {
    hops: [relations.employer, relations.headOffice],
    questions: [
      'Where is the head office of the employer of {x}?',
      'In which city is the company of {x} based?',
    ],
  },
  {
    hops: [relations.employer, relations.founder],
    questions: ['Who founded the employer of {x}?', 'Who started the company that {x} works for?'],
  },
  {
    hops: [relations.headOffice, relations.country],
    questions: ['In which country is the head office of {x}?', 'Which country is home to {x}?'],
  },
  {
    hops: [relations.country, relations.capital],
    questions: [
      'What is the capital of the country of {x}?',
      'From which city is the country of {x} governed?',
    ],
  },
  {
    hops: [relations.country, relations.language],
    questions: [
      'Which language is spoken in the country of {x}?',
      'What do people speak in the city of {x}?',
    ],
  },
  {
    hops: [relations.country, relations.currency],
    questions: ['What is the currency of the country of {x}?', 'Which money is used in the city of {x}?'],
  },
]

const heldOutShare = 0.4

/** Builds the world of a seed: 136 entities, 238 facts, 474 questions in two wordings each drawn one per question. */
export function createWorld(seed: number): World {
  const random = new Random(seed)
  const entities = drawEntities(random)
  const facts = drawFacts(random, entities)
  const objects = new Map(facts.map((fact) => [key(fact.subject, fact.relation), fact.object]))
  const lookup = (subject: string, relation: Relation) => objects.get(key(subject, relation)) ?? null
  return { entities, facts, lookup, ...splitQuestions(random, facts, lookup) }
}

const key = (subject: string, relation: Relation) => `${relation.name}\n${subject}`

function drawEntities(random: Random): World['entities'] {
  const persons = new Set<string>()
  while (persons.size < 48) persons.add(`${random.choice(firstNames)} ${random.choice(lastNames)}`)
  return {
    person: [...persons],
    city: random.shuffle(cityNames),
    country: random.shuffle(countryNames),
    company: random.shuffle(companyNames),
    language: random.shuffle(languages),
    currency: random.shuffle(currencies),
    job: random.shuffle(jobs),
  }
}

function drawFacts(random: Random, entities: World['entities']): Fact[] {
  const facts: Fact[] = []
  const add = (subject: string, relation: Relation, object: string) =>
    facts.push({ subject, relation, object })
  for (const person of entities.person) {
    add(person, relations.birthplace, random.choice(entities.city))
    add(person, relations.employer, random.choice(entities.company))
    add(person, relations.job, random.choice(entities.job))
  }
  // The first ten cities are the capitals, so that each country has one that lies in it.
  entities.city.forEach((city, i) => {
    const country = i < entities.country.length ? entities.country[i]! : random.choice(entities.country)
    add(city, relations.country, country)
  })
  entities.country.forEach((country, i) => {
    add(country, relations.capital, entities.city[i]!)
    add(country, relations.language, entities.language[i]!)
    add(country, relations.currency, entities.currency[i]!)
  })
  for (const company of entities.company) {
    add(company, relations.headOffice, random.choice(entities.city))
    add(company, relations.founder, random.choice(entities.person))
  }
  return facts
}

function splitQuestions(
  random: Random,
  facts: Fact[],
  lookup: World['lookup'],
): Pick<World, 'train' | 'heldOut'> {
  const train: WorldQuestion[] = []
  const heldOut: WorldQuestion[] = []
  const heldOutFacts = drawHeldOutFacts(random, facts)
  for (const first of facts) {
    // One- and two-hop questions that share their first hop fall on the same side.
    const side = heldOutFacts.has(first) ? heldOut : train
    const ask = (wordings: readonly string[], hops: Relation[], answer: string) =>
      side.push({
        id: `${hops.map((hop) => hop.name).join('+')}:${first.subject}`,
        question: random.choice(wordings).replace('{x}', first.subject),
        golden_answers: [answer],
        subject: first.subject,
        hops,
      })
    ask(first.relation.questions, [first.relation], first.object)
    for (const { hops, questions } of twoHops) {
      if (hops[0] !== first.relation) continue
      ask(questions, hops, lookup(first.object, hops[1])!)
    }
  }
  return { train: random.shuffle(train), heldOut: random.shuffle(heldOut) }
}

/** The same share of every relation, so that both sides ask for all of them. */
function drawHeldOutFacts(random: Random, facts: Fact[]): Set<Fact> {
  const chosen = new Set<Fact>()
  for (const relation of Object.values(relations)) {
    const own = random.shuffle(facts.filter((fact) => fact.relation === relation))
    for (const fact of own.slice(0, Math.round(own.length * heldOutShare))) chosen.add(fact)
  }
  return chosen
}

/** "birthplace of Ada Lund": what a query asks, and the heading of the fact that answers it. */
export const queryText = (subject: string, relation: Relation): string => `${relation.heading} ${subject}`

/** One paraphrase of a fact. */
export function statement(random: Random, subject: string, relation: Relation, object: string): string {
  return random.choice(relation.statements).replace('{x}', subject).replace('{y}', object)
}

/** A fact sentence; half of them carry an index heading, which ties the words of a query to the fact. */
export function factSentence(random: Random, fact: Fact): string {
  const sentence = statement(random, fact.subject, fact.relation, fact.object)
  return random.chance(0.5) ? `${queryText(fact.subject, fact.relation)}: ${sentence}` : sentence
}
