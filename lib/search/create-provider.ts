import { SsrlError } from '../errors.ts'
import { cacheProvider } from './cache.ts'
import { httpProvider } from './http.ts'
import { localProvider } from './local.ts'
import { openaiProvider } from './openai.ts'
import { policyProvider } from './policy.ts'
import { type SearchProvider, selfProvider } from './provider.ts'
import { providerSpelling } from './provider-spelling.ts'
import { searxngProvider, serperProvider } from './web.ts'

export interface CreateProviderOptions {
  /** Of a policy that plays the engine. */
  noiseStart?: number
  noiseEnd?: number
  leakAnswer?: boolean
  /** Where answers are remembered; null: nowhere. */
  cache?: string | null
  cacheMode?: 'record' | 'replay'
  signal?: AbortSignal
}

/**
 * A provider from one word, as a setting or a flag has it. The caller closes it.
 * @throws SsrlError `ERR_INVALID_CONFIG` for another word or a missing key, and what opening an index or a model throws
 */
export async function createProvider(
  word: string,
  options: CreateProviderOptions = {},
): Promise<SearchProvider> {
  const provider = await openProvider(word, options)
  const { cache = null, cacheMode } = options
  return cache === null ? provider : cacheProvider(provider, { file: cache, mode: cacheMode })
}

async function openProvider(word: string, options: CreateProviderOptions): Promise<SearchProvider> {
  const colon = word.indexOf(':')
  const kind = colon < 0 ? word : word.slice(0, colon)
  const rest = colon < 0 ? '' : word.slice(colon + 1)
  const hasRest = rest !== ''
  if (kind === 'self' && colon < 0) return selfProvider
  if (kind === 'serper' && colon < 0) return serperProvider()
  if (kind === 'local' && hasRest) return localProvider(rest)
  if (kind === 'searxng' && hasRest) return searxngProvider({ url: rest })
  // An address is a provider as it stands; `http:` before it is for those who like it spelt out.
  if (/^https?:\/\//.test(word)) return httpProvider({ url: word })
  if (kind === 'http' && hasRest) return httpProvider({ url: rest })
  if (kind === 'openai' && rest.includes('@')) {
    const at = rest.indexOf('@')
    return openaiProvider({ model: rest.slice(0, at), url: rest.slice(at + 1) })
  }
  if (kind === 'policy' && hasRest) return loadPolicyProvider(rest, options)
  throw new SsrlError(
    'ERR_INVALID_CONFIG',
    `Expected a search provider (${providerSpelling}) but received ${JSON.stringify(word)}`,
  )
}

async function loadPolicyProvider(source: string, options: CreateProviderOptions): Promise<SearchProvider> {
  const { Policy } = await import('../policy/policy.ts')
  const policy = await Policy.load(source, { signal: options.signal })
  const { noiseStart, noiseEnd, leakAnswer } = options
  const provider = policyProvider({ policy, name: source, noiseStart, noiseEnd, leakAnswer })
  return { ...provider, close: () => policy.dispose() }
}
