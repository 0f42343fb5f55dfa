// Signs in with a token. The server keeps it in a cookie that scripts can't read.
import { call } from "./api.js";

export const login = (token) => call("POST", "login", { token });
