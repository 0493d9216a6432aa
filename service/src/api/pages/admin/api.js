// What is asked of the service. Paths are relative to the page, so that a base path and proxies make no difference.

const KEPT_AS = 'kairos-operators-token';
const DEADLINE_MS = 65_000;

export const token = {
  get: () => sessionStorage.getItem(KEPT_AS),
  set: (value) => sessionStorage.setItem(KEPT_AS, value),
  forget: () => sessionStorage.removeItem(KEPT_AS),
};

export class ApiError extends Error {
  constructor(status, code, description, details) {
    super(description);
    Object.assign(this, { status, code, details });
  }
}

async function failure(response) {
  const { error } = await response.json().catch(() => ({}));
  const description = error?.description ?? (response.status === 429 ? 'The service has too many such requests' : 'No answer');
  return new ApiError(response.status, error?.code ?? `HTTP ${response.status}`, description, error?.details);
}

// `body` is sent as JSON; text is sent as YAML.
async function ask(path, body) {
  const isText = typeof body === 'string';
  const headers = { authorization: `Bearer ${token.get()}` };
  if (body !== undefined) headers['content-type'] = isText ? 'application/yaml' : 'application/json';
  const response = await fetch(`../api/${path}`, {
    method: body === undefined ? 'GET' : 'POST',
    headers,
    body: body === undefined || isText ? body : JSON.stringify(body),
    cache: 'no-store',
    signal: AbortSignal.timeout(DEADLINE_MS),
  });
  if (!response.ok) throw await failure(response);
  return (await response.json()).data;
}

export const api = {
  overview: () => ask('admin/v1/overview'),
  events: () => ask('admin/v1/events'),
  connections: () => ask('admin/v1/connections'),
  definitions: () => ask('admin/v1/store/definitions'),
  rules: () => ask('sync-rules/v1/current'),
  plan: (text) => ask('admin/v1/rules/plan', text),
  explain: (question) => ask('admin/v1/explain', question),
};
