"""What cannot be had for tests, in the images of compose.yaml. One program with two uses:

opensearch   starts the real node of the image on port 9201 as the published image's start script would, and
             stands before it on port 9200: everything goes through to the node but the APIs of plugins that
             are not in it, index state management and data sources. These are answered here.
dashboards   Dashboards' API for saved objects and workspaces, and the page for logging in.

It models: paths, methods, the required fields of bodies, whether somebody is logged in (the real node is
asked), the answers' shape, and that what was stored is there later. It does not model that a policy is
carried out or a panel is drawn."""

import glob, http.client, http.server, json, os, re, signal, ssl, subprocess, sys, threading
from email.parser import BytesParser

USE = sys.argv[1]
NODE = "/usr/share/opensearch"


class Store:
    """Documents by name, in a file, with the sequence numbers that updates must name."""

    def __init__(self, path):
        self.path, self.lock = path, threading.Lock()
        try:
            with open(path) as file:
                self.all = json.load(file)
        except FileNotFoundError:
            self.all = {}

    def put(self, name, body):
        with self.lock, open(self.path, "w") as file:
            number = self.all.get(name, {}).get("number", -1) + 1
            self.all[name] = {"body": body, "number": number}
            json.dump(self.all, file)
        return number


class Refused(Exception):
    """Status and what is wrong."""


def want(condition, what, status=400):
    if not condition:
        raise Refused(status, what)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def body(self):
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return parts
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def answer(self, status, body, kind="application/json; charset=UTF-8"):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def logged_in(self):
        status, _, _ = ask_node("GET", "/_plugins/_security/authinfo", self.headers)
        want(status == 200, "Unauthorized", 401)

    def serve(self):
        body = self.body()
        try:
            handled = respond(self, self.path.split("?")[0], body)
        except Refused as refused:
            status, what = refused.args
            handled = status, {"status": status, "error": {"type": "refused", "reason": what}}
            print(f"standin: {self.command} {self.path}: {status} {what}")
        if handled:
            self.answer(*handled)
        else:
            status, kind, data = ask_node(self.command, self.path, self.headers, body, self.is_admin())
            self.answer(status, data, kind)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do_PATCH = serve

    def is_admin(self):
        """Whether the certificate of the stack's admin was shown."""
        shown = self.connection.getpeercert() if USE == "opensearch" else None
        return any(pair == ("commonName", "admin") for part in (shown or {}).get("subject", ()) for pair in part)

    def log_message(self, *_):
        pass


def ask_node(method, path, headers, body=b"", admin=False):
    tls = ssl.create_default_context(cafile=CA)
    if admin:
        tls.load_cert_chain(f"{NODE}/config/certificates/admin.pem", f"{NODE}/config/certificates/admin.key")
    kept = {k: v for k, v in headers.items() if k.lower() not in ("host", "transfer-encoding", "content-length", "connection")}
    try:
        connection = http.client.HTTPSConnection(*UPSTREAM, context=tls, timeout=60)
        connection.request(method, path, body or None, kept)
        answer = connection.getresponse()
        return answer.status, answer.getheader("Content-Type", "application/json"), answer.read()
    except (OSError, http.client.HTTPException) as error:
        return 503, "text/plain", f"the node does not answer: {error}\n".encode()


def parsed(body):
    try:
        return json.loads(body)
    except ValueError as error:
        raise Refused(400, f"not JSON: {error}")


def plugins(handler, path, body):
    """Index state management and data sources: docs _im-plugin/ism/api, search-plugins/sql/direct-query."""
    if match := re.fullmatch(r"/_plugins/_ism/policies/([^/]+)", path):
        handler.logged_in()
        return ism_policy(handler, match[1], body)
    if match := re.fullmatch(r"/_plugins/_ism/explain/([^/]+)", path):
        handler.logged_in()
        return 200, ism_explained(handler, match[1])
    if re.fullmatch(r"/_plugins/_ism/(add|change_policy)/([^/]+)", path):
        handler.logged_in()
        want("policy_id" in parsed(body), "policy_id is missing")
        return 200, {"updated_indices": 0, "failures": False, "failed_indices": []}
    if match := re.fullmatch(r"/_plugins/_query/_datasources(?:/([^/]+))?", path):
        handler.logged_in()
        return data_source(handler, match[1], body)


def ism_policy(handler, name, body):
    known = STORE.all.get(f"ism/{name}")
    if handler.command == "GET":
        want(known, "Policy not found", 404)
        return 200, {"_id": name, "_seq_no": known["number"], "_primary_term": 1, "policy": known["body"]}
    want(handler.command == "PUT", "method", 405)
    policy = parsed(body).get("policy")
    want(isinstance(policy, dict), "policy is missing")
    states = {s.get("name"): s for s in policy.get("states", [])}
    want(policy.get("default_state") in states, "default_state is none of states")
    for state in states.values():
        want(isinstance(state.get("actions"), list), "a state has no list of actions")
        for step in state.get("transitions", []):
            want(step.get("state_name") in states, "a transition leads to no state")
    given = re.search(r"if_seq_no=(\d+)&if_primary_term=1|if_primary_term=1&if_seq_no=(\d+)", handler.path)
    if known:
        want(given and int(given[1] or given[2]) == known["number"], "version conflict", 409)
    number = STORE.put(f"ism/{name}", policy)
    return (200 if known else 201), {"_id": name, "_version": number + 1, "_seq_no": number, "_primary_term": 1, "policy": policy}


def ism_explained(handler, stream):
    """Its indices have the policy of its name, if there is one: they were made after it."""
    policy = STORE.all.get(f"ism/{stream}")
    _, _, told = ask_node("GET", f"/_data_stream/{stream}", handler.headers)
    indices = [i["index_name"] for s in parsed(told).get("data_streams", []) for i in s["indices"]]
    one = {"index.plugins.index_state_management.policy_id": stream if policy else None}
    if policy:
        one |= {"policy_id": stream, "policy": policy["body"]}
    return {i: one | {"index": i} for i in indices} | {"total_managed_indices": len(indices) if policy else 0}


def data_source(handler, name, body):
    if handler.command == "GET":
        if name is None:
            return 200, [v["body"] for k, v in STORE.all.items() if k.startswith("source/")]
        known = STORE.all.get(f"source/{name}")
        want(known, f"DataSource with name {name} does not exist", 404)
        return 200, known["body"]
    want(handler.command in ("POST", "PUT"), "method", 405)
    source = parsed(body)
    want({"name", "connector", "properties"} <= source.keys(), "name, connector and properties are required")
    want("prometheus.uri" in source["properties"], "prometheus.uri is required")
    want(os.environ.get("plugins.query.datasources.encryption.masterkey"), "no master key is set")
    if handler.command == "POST":
        want(f"source/{source['name']}" not in STORE.all, "the data source exists", 400)
    STORE.put(f"source/{source['name']}", source)
    return (201 if handler.command == "POST" else 200), f"{handler.command.title()}ed DataSource with name {source['name']}"


def saved_objects(handler, path, body):
    """docs: Dashboards' saved objects and workspaces APIs."""
    if path == "/app/login":
        status, _, _ = ask_node("GET", "/_plugins/_security/authinfo", own_login())
        want(status == 200, f"OpenSearch answers {status} to the server's own user", 503)
        return 200, b"<html></html>", "text/html"
    path = re.sub(r"^/w/[^/]+", "", path)
    handler.logged_in()
    if path == "/api/status":
        return 200, {"version": {"number": "3.8.0"}, "status": {"overall": {"state": "green"}}}
    if handler.command != "GET":
        want(handler.headers.get("osd-xsrf"), "Request must contain a osd-xsrf header.")
    if path == "/api/saved_objects/_import":
        message = BytesParser().parsebytes(b"Content-Type: " + handler.headers["Content-Type"].encode() + b"\r\n\r\n" + body)
        part = next((p for p in message.walk() if p.get_filename()), None)
        want(part, "no file")
        objects = [parsed(line) for line in part.get_payload(decode=True).splitlines() if line.strip()]
        for one in objects:
            want({"type", "id", "attributes"} <= one.keys(), "an object without type, id or attributes")
            STORE.put(f"{one['type']}/{one['id']}", one)
        done = [{"type": o["type"], "id": o["id"], "meta": {}} for o in objects]
        return 200, {"success": True, "successCount": len(done), "successResults": done}
    if path == "/api/saved_objects/_bulk_get":
        return 200, {"saved_objects": [found(one) for one in parsed(body)]}
    if match := re.fullmatch(r"/api/saved_objects/([^/_][^/]*)/([^/]+)", path):
        name = "/".join(match.groups())
        if handler.command == "GET":
            want(name in STORE.all, "Not found", 404)
            return 200, STORE.all[name]["body"]
        one = parsed(body) | {"type": match[1], "id": match[2]}
        want(isinstance(one.get("attributes"), dict), "attributes are required")
        STORE.put(name, one)
        return 200, one
    if path.startswith("/api/workspaces"):
        return workspaces(handler, body)
    raise Refused(404, f"no such path: {path}")


def found(one):
    known = STORE.all.get(f"{one['type']}/{one['id']}")
    missing = {"error": {"statusCode": 404, "error": "Not Found", "message": "Saved object not found"}}
    return one | (known["body"] if known else missing)


def workspaces(handler, body):
    known = [v["body"] for k, v in STORE.all.items() if k.startswith("workspace/")]
    if handler.command == "POST" and handler.path.endswith("_list"):
        return 200, {"success": True, "result": {"total": len(known), "per_page": 999, "page": 1, "workspaces": known}}
    attributes = parsed(body).get("attributes", {}) if body else {}
    if handler.command == "POST":
        want("name" in attributes, "attributes.name is required")
        identity = f"space{len(known)}"
        STORE.put(f"workspace/{identity}", attributes | {"id": identity})
        return 200, {"success": True, "result": {"id": identity}}
    return 200, {"success": True, "result": True}


def own_login():
    import base64

    settings = dict(re.findall(r"^(opensearch\.\w+): (.*)$", open("config/opensearch_dashboards.yml").read(), re.M))
    password = re.sub(r"\$\{(\w+)\}", lambda m: os.environ[m[1]], settings["opensearch.password"])
    login = f"{settings['opensearch.username']}:{password}".encode()
    return {"Authorization": "Basic " + base64.b64encode(login).decode()}


def start_node():
    if os.environ.get("DISABLE_INSTALL_DEMO_CONFIG") != "true":
        sys.exit("the published image would install well-known keys and users here")
    settings = [f"-E{k}={v}" for k, v in os.environ.items() if re.fullmatch(r"[a-z][a-z0-9_]*(\.[a-z0-9_]+)+", k)]
    # Settings of plugins that are not in this image are unknown to the node.
    settings = [s for s in settings if not s.startswith("-Eplugins.query.")]
    agent = glob.glob(f"{NODE}/agent/opensearch-agent-[0-9]*.jar")[0]
    return subprocess.Popen(
        [f"{NODE}/jdk/bin/java", *os.environ.get("OPENSEARCH_JAVA_OPTS", "").split(), "-XX:+UseSerialGC",
         "-XX:TieredStopAtLevel=1", f"-javaagent:{agent}", f"-Djava.io.tmpdir={NODE}/tmp", "-Djna.nosys=true",
         f"-Djna.tmpdir={NODE}/tmp", "-Dlog4j2.disable.jmx=true", "-Djava.locale.providers=SPI,CLDR",
         "-Dopensearch.distribution.type=docker", "-Dopensearch.bundled_jdk=true", "--enable-native-access=ALL-UNNAMED",
         f"-Dopensearch.path.home={NODE}", f"-Dopensearch.path.conf={NODE}/config", "-cp", f"{NODE}/lib/*",
         "org.opensearch.bootstrap.OpenSearch", "-Ehttp.host=127.0.0.1", "-Ehttp.port=9201", *settings])


if USE == "opensearch":
    CA, UPSTREAM = f"{NODE}/config/certificates/ca.pem", ("localhost", 9201)
    STORE, respond = Store(f"{NODE}/data/standin.json"), plugins
    server = http.server.ThreadingHTTPServer(("0.0.0.0", 9200), Handler)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(f"{NODE}/config/certificates/opensearch.pem", f"{NODE}/config/certificates/opensearch.key")
    tls.load_verify_locations(CA)
    tls.verify_mode = ssl.CERT_OPTIONAL
    server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    node = start_node()
    signal.signal(signal.SIGTERM, lambda *_: node.terminate())
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.exit(node.wait())

CA, UPSTREAM = "/etc/clawker/ca.pem", ("opensearch", 9200)
STORE, respond = Store("data/standin.json"), saved_objects
server = http.server.ThreadingHTTPServer(("0.0.0.0", 5601), Handler)
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
server.serve_forever()
