import type { Event } from './types'

export interface Request { id: number; verb: string; query: string; status: string; bytes: number; began: number; ended?: number; end?: string; frames: number }

// A View is what the page shows of the events so far.
export interface View {
  now: number // milliseconds of virtual time
  ended: boolean // the story is over
  events: Event[] // the last ones
  dropped: number
  memory: number // bytes of the program, or 0
  server: Map<string, string>
  store: Map<string, string>
  requests: Map<number, Request>
  log: Event[]
  errors: Event[]
  handlers: string[]
  versions: Map<string, unknown> // pods by key and version
  brought: Map<string, number> // the request that brought a version
}

export const most = 5_000 // events that are kept

export const empty = (): View => ({
  now: 0, ended: false, events: [], dropped: 0, memory: 0, server: new Map(), store: new Map(), requests: new Map(), log: [], errors: [], handlers: [], versions: new Map(), brought: new Map(),
})

export const id = (e: Event) => `${e.key} ${e.version}`

// take adds events to a view. attached says that they come from a cluster.
export function take(v: View, news: Event[], store?: Record<string, string>, attached = false) {
  for (const e of news) {
    v.events.push(e)
    if (e.pod) {
      v.versions.set(id(e), e.pod)
      if (e.stage === 'request') v.brought.set(id(e), e.request!)
    }
    switch (e.stage) {
      case 'server':
        if (e.kind === 'DELETED') v.server.delete(e.key!)
        else v.server.set(e.key!, e.version!)
        break
      case 'request': {
        let r = v.requests.get(e.request!)
        if (!r) v.requests.set(e.request!, (r = { id: e.request!, verb: e.kind, query: e.text ?? '', status: '…', bytes: 0, began: e.at, frames: 0 }))
        else if (e.kind === 'status') r.status = e.text!
        else if (e.kind === 'refused') Object.assign(r, { status: 'refused', ended: e.at, end: e.text })
        else if (e.kind === 'end') Object.assign(r, { bytes: e.bytes, ended: e.at, end: e.text })
        else {
          // On a cluster, what a frame says is all that is known of the server.
          if (attached && e.key && e.kind === 'DELETED') v.server.delete(e.key)
          else if (attached && e.key) v.server.set(e.key, e.version!)
          r.frames++
          r.bytes += e.bytes ?? 0
        }
        break
      }
      case 'handler':
        if (!v.handlers.includes(e.handler!)) v.handlers = [...v.handlers, e.handler!].sort()
        break
      case 'log':
        v.log.push(e)
        break
      case 'error':
        v.errors.push(e)
    }
  }
  if (store) v.store = new Map(Object.entries(store))
  for (const list of [v.events, v.log, v.errors])
    if (list.length > most) {
      if (list === v.events) v.dropped += list.length - most
      list.splice(0, list.length - most)
    }
  const limits: [Map<unknown, unknown>, number][] = [[v.versions, most], [v.brought, most], [v.requests, 200]]
  for (const [map, limit] of limits)
    for (const key of map.keys()) {
      if (map.size <= limit) break
      map.delete(key)
    }
}

// Each kind has a shape as well as a color.
export type Look = 'initial' | 'new' | 'changed' | 'deleted' | 'resync' | 'relist' | 'tombstone' | 'bookmark' | 'error' | 'other'
export const shapes: Record<Look, string> = {
  initial: '○', new: '●', changed: '■', deleted: '✕', resync: '↻', relist: '⟲', tombstone: '†', bookmark: '⚑', error: '!', other: '·',
}

export function look(e: Event): Look {
  const kind = e.kind
  if (e.stage === 'error' || kind === 'ERROR' || kind === 'refused' || kind.startsWith('fails') || (kind === 'status' && e.text !== '200')) return 'error'
  if (kind === 'Add initial') return 'initial'
  if (kind.endsWith('tombstone')) return 'tombstone'
  if (kind.endsWith('resync')) return 'resync'
  if (kind.endsWith('relist')) return 'relist'
  if (kind === 'BOOKMARK') return 'bookmark'
  if (kind === 'ADDED' || kind === 'Add') return 'new'
  if (kind === 'MODIFIED' || kind === 'Update') return 'changed'
  if (kind === 'DELETED' || kind === 'Delete') return 'deleted'
  return 'other'
}

// differences are the fields that differ between two versions of a pod.
export function differences(old: unknown, now: unknown, path = ''): string[] {
  if (JSON.stringify(old) === JSON.stringify(now)) return []
  const object = (x: unknown): x is Record<string, unknown> => typeof x === 'object' && x !== null
  if (!object(old) || !object(now)) return [`${path}: ${short(old)} → ${short(now)}`]
  const keys = [...new Set([...Object.keys(old), ...Object.keys(now)])].filter((k) => !['managedFields', 'resourceVersion', 'kind', 'apiVersion'].includes(k))
  return keys.flatMap((k) => differences(old[k], now[k], path ? `${path}.${k}` : k))
}

function short(x: unknown): string {
  const text = x === undefined ? 'nothing' : typeof x === 'string' ? x : JSON.stringify(x)
  return text.length > 60 ? text.slice(0, 57) + '…' : text
}

export const seconds = (ms: number) => (ms / 1000).toFixed(3) + ' s'
