// Signs in with a token, and out. The server keeps the token in a cookie that scripts can't read.
import { call } from "./api.js";

export const login = (token) => call("POST", "login", { token });

export const logout = () => call("POST", "logout");
