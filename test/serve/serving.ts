import type { ExecutionContext } from 'ava'
import OpenAI from 'openai'
import type { Policy } from '../../lib/policy/policy.ts'
import { listen } from '../../lib/serve/listen.ts'
import { type ServeOptions, serveApp } from '../../lib/serve/serve-app.ts'
import { tinyPolicy } from '../helpers/tiny-policy.ts'

export interface Serving {
  policy: Policy
  url: string
  client: OpenAI
}

/** A tiny policy behind a server of its own, and the official client at it. It never tries again by itself. */
export async function serving(
  t: ExecutionContext,
  { maxPositions = 256, ...options }: Partial<ServeOptions> & { maxPositions?: number } = {},
): Promise<Serving> {
  const policy = options.policy ?? (await tinyPolicy({ maxPositions }))
  const server = await listen(serveApp({ model: 'tiny', ...options, policy }), { port: 0 })
  t.teardown(async () => {
    await server.close()
    await policy.dispose()
  })
  const client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: options.apiKey ?? 'any', maxRetries: 0 })
  return { policy, url: server.url, client }
}

/** Waits until nothing is generated any more, and says how many tokens were in all. */
export async function tokensAtRest(policy: Policy): Promise<number> {
  for (let last = -1; ; ) {
    const { decodedTokens } = await policy.generatorStatistics()
    if (decodedTokens === last) return decodedTokens
    last = decodedTokens
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
}
